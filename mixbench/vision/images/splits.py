"""Splits of an image data set: resident on the device, or streamed from files.

Both kinds of split return the same batches.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import get_worker_info

from mixbench.contract import ClassIndex, Normalization, Split
from mixbench.errors import BadParameter, DataError
from mixbench.streams import generator
from mixbench.vision.images.augment import Augmentation, CropFlip
from mixbench.vision.images.decode import read_image
from mixbench.vision.images.packs import Pack
from mixbench.vision.images.policies import auto_augment, erase, transform_of

THREADS = 8  # for reading images outside DataLoader workers
IMAGENET_NORMALIZATION = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class ImageSplit:
    """Base class of image splits, which converts stored pixels to a model's input.

    Parameters
    ----------
    targets : (N, ...)
        Targets of the N items.
    by_class
        The items grouped by class; None if items have no single class.
    normalization
        Mean and standard deviation of each channel.
    augment
        Augmentation of training batches; None for no augmentation.
    max_value
        Stored value that is scaled to 1.
    """

    def __init__(
        self,
        targets: Tensor,
        by_class: ClassIndex | None,
        normalization: Normalization,
        augment: Augmentation | None = None,
        *,
        max_value: float = 255.0,
    ) -> None:
        self.targets = targets
        self.by_class = by_class
        self.augment = augment
        self.device = torch.device("cpu")
        self._normalization = normalization
        self._max_value = max_value
        self._policy, self._erasing = "", 0.0

    def __len__(self) -> int:
        return len(self.targets)

    def with_targets(self, targets: Tensor) -> Self:
        """Return the same images with other targets."""
        other = copy(self)
        other.targets = targets
        return other

    def only(self, items: Tensor) -> Self:
        """Return a split of some items."""
        fewer = self.with_targets(self.targets[items])
        if self.by_class is not None:
            kept, number = self.by_class.classes[items], len(self.by_class.counts)
            fewer.by_class = ClassIndex(kept, number)
        return fewer

    def to(self, device: torch.device) -> Self:
        """Return the same split with its batches on a device; leave this one unchanged."""
        moved = copy(self)
        moved.device = device
        return moved

    def augmented(self, policy: str, erasing: float) -> Self:
        """Return the same split with the augmentations that a recipe adds to the split's own.

        Parameters
        ----------
        policy
            Policy of automatic augmentation, applied to the cropped image; empty for none.
        erasing
            Probability of random erasing, applied to the normalised image.
        """
        more = copy(self)
        more._policy, more._erasing = policy, erasing
        return more

    def check_colours(self) -> None:
        """Check that images have three channels, which policies of augmentation need.

        Raises
        ------
        BadParameter
            If they have not.
        """
        if (channels := len(self._normalization.mean)) != 3:  # red, green and blue
            raise BadParameter(
                f"auto_augment must be empty for images of {channels} channel: its policies change "
                "colours."
            )

    def unnormalized(self) -> Self:
        """Return a copy of the split whose images are not normalised: pixels in [0, 1]."""
        plain, channels = copy(self), len(self._normalization.mean)
        plain._normalization = Normalization((0.0,) * channels, (1.0,) * channels)
        return plain

    def draw(self, number: int, rng: torch.Generator | None) -> Tensor | None:
        """Return the draws of a batch, or None without augmentation.

        The last two of each row are for what the recipe adds, if it adds something.
        """
        added = bool(self._policy or self._erasing)
        if rng is None or not (self.augment or added):
            return None
        own = self.augment.draw(number, rng) if self.augment else torch.empty(number, 0)
        return torch.cat([own, torch.rand(number, 2, generator=rng)], 1) if added else own

    def _add_policy(self, image: Tensor, draws: Tensor) -> Tensor:
        """Return a cropped image with the recipe's policy applied."""
        return auto_augment(self._policy, image, float(draws[-2])) if self._policy else image

    def fetch(self, index: Tensor, draws: Tensor | None) -> Tensor:
        """Return the stored pixels of the items, cropped, uint8 (B, C, h, w)."""
        raise NotImplementedError

    def finish(self, images: Tensor, draws: Tensor | None) -> Tensor:
        """Convert fetched items to model input, normalised float32 on the split's device."""
        images = images.to(self.device, non_blocking=True).to(torch.float32)
        mean, std = (images.new_tensor(values)[:, None, None] for values in self._normalization)
        if self.augment and draws is not None:
            images, scale = self.augment.color_jitter(images.div_(self._max_value), draws), 1 / std
        else:
            scale = 1 / (self._max_value * std)
        images = images.mul_(scale).sub_(mean / std)
        if self._erasing and draws is not None:
            images = erase(images, self._erasing, draws[:, -1])
        return images

    def read(self, index: Tensor, rng: torch.Generator | None) -> Tensor:
        """Return the items' normalised images, augmented with `rng` unless it is None."""
        draws = self.draw(len(index), rng)
        return self.finish(self.fetch(index, draws), draws)


class ResidentSplit(ImageSplit):
    """A split that stays in memory and is augmented in batches on its device.

    Parameters
    ----------
    images : (N, C, H, W) uint8
        Pixels of the N images.
    """

    def __init__(
        self,
        images: Tensor,
        targets: Tensor,
        by_class: ClassIndex | None,
        normalization: Normalization,
        augment: CropFlip | None = None,
        *,
        max_value: float = 255.0,
    ) -> None:
        super().__init__(targets, by_class, normalization, augment, max_value=max_value)
        self.images = images
        self._augment = augment

    def only(self, items: Tensor) -> Self:
        """Return a split of some items."""
        fewer = super().only(items)
        fewer.images = self.images[items]
        return fewer

    def to(self, device: torch.device) -> Self:
        """Return the same split with its images on a device; leave this one unchanged."""
        moved = super().to(device)
        moved.images = self.images.to(device)
        return moved

    def fetch(self, index: Tensor, draws: Tensor | None) -> Tensor:
        """Return the stored pixels of the items, cropped, uint8 (B, C, H, W)."""
        images = self.images.index_select(0, index.to(self.device))
        if draws is None:
            return images
        if self._augment is not None:
            images = self._augment.crop_batch(images, draws)
        if not self._policy:
            return images
        pairs = zip(images.cpu(), draws, strict=True)
        return torch.stack([self._add_policy(*pair) for pair in pairs]).to(self.device)


class StreamedSplit(ImageSplit):
    """A split whose images are read from files on demand.

    Parameters
    ----------
    paths
        Paths of the N images. They are stored in one array, because a million Python objects would
        be copied into every DataLoader worker.
    fit
        Function that brings an image, uint8 (3, H, W) of any size, to the common size if it is not
        augmented.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        targets: Tensor,
        by_class: ClassIndex | None,
        normalization: Normalization,
        augment: Augmentation | None = None,
        *,
        fit: Callable[[Tensor], Tensor],
    ) -> None:
        super().__init__(targets, by_class, normalization, augment)
        self._paths = np.array([os.fsencode(path) for path in paths])
        self._fit = fit
        self._packed: tuple[Pack, NDArray[np.int64]] | None = None

    def only(self, items: Tensor) -> Self:
        """Return a split of some items."""
        fewer = super().only(items)
        fewer._paths = self._paths[items.numpy()]
        return fewer

    @property
    def files(self) -> list[Path]:
        """Paths of all image files of the split."""
        return [Path(os.fsdecode(path)) for path in self._paths]

    def packed(self, pack: Pack) -> Self:
        """Return the same split, which reads its images from a pack."""
        reading = copy(self)
        reading._packed = pack, pack.rows_of(self._paths.tolist())
        return reading

    def path(self, item: int) -> Path:
        """Return the path of an item's image file."""
        return Path(os.fsdecode(self._paths[item]))

    def fetch(self, index: Tensor, draws: Tensor | None) -> Tensor:
        """Read, crop and stack the items, uint8 (B, 3, h, w), in host memory."""
        rows: list[Tensor | None] = [None] * len(index) if draws is None else list(draws)
        if get_worker_info() is not None:
            return torch.stack([
                self._one(i, row) for i, row in zip(index.tolist(), rows, strict=True)
            ])
        with ThreadPoolExecutor(THREADS) as pool:
            return torch.stack(list(pool.map(self._one, index.tolist(), rows)))

    def _one(self, item: int, draws: Tensor | None) -> Tensor:
        image = self._image(item)
        if draws is None:
            return self._fit(image)
        cropped = self.augment.crop(image, draws) if self.augment else self._fit(image)
        return self._add_policy(cropped, draws)

    def _image(self, item: int) -> Tensor:
        if self._packed is None:
            return read_image(self.path(item))
        pack, rows = self._packed
        return pack.read(int(rows[item]))


def limited(split: Split, number: int, seed: int = 0) -> Split:
    """Return a split of at most so many items, as many of each class as possible; 0 keeps all.

    Raises
    ------
    BadParameter
        If the task does not use single images.
    """
    if not number:
        return split
    if type(split) not in {ResidentSplit, StreamedSplit}:  # boxes and captions describe the image
        raise BadParameter(
            f"limit must be 0 for a task that does not use single images (got {number})."
        )
    assert isinstance(split, ImageSplit)
    order = torch.randperm(len(split), generator=generator(seed, "limit"))
    if split.by_class is not None:
        order = order[in_turns(split.by_class.classes[order])]
    return split.only(order[:number].sort().values)


def in_turns(classes: Tensor) -> Tensor:
    """Return the positions of items, (N,) int64: the first of each class, then the second, ...

    Parameters
    ----------
    classes : (N,) int64
        Class index of each item.
    """
    order, counts = classes.argsort(stable=True), classes.bincount()
    turn = torch.arange(len(order)) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    return order[turn.argsort(stable=True)]


def with_augmentation(split: Split, policy: str, erasing: float) -> Split:
    """Return a training split with the augmentations that a recipe adds.

    Raises
    ------
    BadParameter
        If the task does not train on single images, or there is no such policy.
    """
    if not (policy or erasing):
        return split
    if type(split) not in {ResidentSplit, StreamedSplit}:  # boxes and captions describe the image
        name = "auto_augment must be empty" if policy else "random_erasing must be 0"
        raise BadParameter(f"{name} for a task that does not train on single images.")
    assert isinstance(split, ImageSplit)
    if policy:
        transform_of(policy, (1, 1))
        split.check_colours()
    return split.augmented(policy, erasing)


def read_packed(split: Split, folder: Path, short_side: int, state: str = "") -> Split:
    """Return a split that reads its images from the pack of a data folder.

    Parameters
    ----------
    split
        A split of the data.
    folder
        Folder of the data.
    short_side : pixels
        Short side of the packed images.
    state
        State of the files that the pack must have; empty for any.

    Raises
    ------
    BadParameter
        If the split does not read image files, or needs their own sizes.
    DataError
        If there is no such pack, or if the files have changed since they were packed.
    """
    if type(split) is not StreamedSplit:  # splits with boxes or captions refer to the files
        raise BadParameter(
            f"packed must be 0 for a task that does not train on single image files (got "
            f"{short_side})."
        )
    if len(split) and not split.path(0).is_relative_to(folder):
        return split  # validation images from elsewhere are read from their files
    return split.packed(Pack(folder, short_side, state))


def read_all(paths: Sequence[Path], size: tuple[int, int]) -> Tensor:
    """Read image files of one size, (N, 3, H, W) uint8.

    Parameters
    ----------
    paths
        Paths of the N images.
    size : pixels
        Height and width that every image must have.

    Raises
    ------
    DataError
        If an image cannot be read or has another size.
    """
    images = torch.empty(len(paths), 3, *size, dtype=torch.uint8)

    def place(item: int) -> None:
        image = read_image(paths[item])
        if image.shape[1:] != size:
            raise DataError(
                f"{paths[item]} must be {size[0]} x {size[1]} pixels "
                f"(got {image.shape[1]} x {image.shape[2]})."
            )
        images[item] = image

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(place, range(len(paths))))
    return images


def held_out_share(number: int, share: float, rng: torch.Generator) -> Tensor:
    """Return a mask of randomly drawn held-out items, (number,) bool; at least one if any.

    Parameters
    ----------
    number
        Number of items.
    share
        Fraction of the items to hold out; 0 holds out none.
    rng
        Random generator of the draw.
    """
    held = torch.zeros(number, dtype=torch.bool)
    if share == 0:
        return held
    held[torch.randperm(number, generator=rng)[: max(round(share * number), 1)]] = True
    return held


def _by_class(classes: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield each class that occurs, in ascending order, with the indices of its items."""
    index = ClassIndex(classes, int(classes.max()) + 1 if len(classes) else 0)
    yield from ((name, index.members(name)) for name in index.counts.nonzero().flatten().tolist())


def stratified_draw(classes: Tensor, number: int, rng: torch.Generator) -> Tensor:
    """Return a mask of randomly drawn items, the same number of every class.

    Parameters
    ----------
    classes : (N,) int64
        Class index of each item.
    number
        Number of items of each class to draw.
    rng
        Random generator of the draw.

    Returns
    -------
    drawn : (N,) bool
        True for the items that are drawn.

    Raises
    ------
    DataError
        If a class has fewer items.
    """
    drawn = torch.zeros(len(classes), dtype=torch.bool)
    for name, members in _by_class(classes):
        if len(members) < number:
            raise DataError(
                f"per_class must be at most the number of training images of each class: class "
                f"{name} has {len(members)} (got {number})."
            )
        order = torch.randperm(len(members), generator=rng)
        drawn[members[order[:number]]] = True
    return drawn


def stratified_holdout(classes: Tensor, share: float, rng: torch.Generator) -> Tensor:
    """Return a mask of held-out items, a randomly drawn fraction of every class.

    Parameters
    ----------
    classes : (N,) int64
        Class index of each item.
    share
        Fraction of each class to hold out.
    rng
        Random generator of the draw.

    Returns
    -------
    held : (N,) bool
        True for the items that are held out.

    Raises
    ------
    DataError
        If no item, or every item, of a class would be held out.
    """
    held = torch.zeros(len(classes), dtype=torch.bool)
    if share == 0:
        return held
    for name, members in _by_class(classes):
        number = round(share * len(members))
        if not 0 < number < len(members):
            raise DataError(
                f"The held-out fraction must leave images of every class in the training and the "
                f"validation split: class {name} has {len(members)} images, of which "
                f"{number} would be held out (got {share}). Change the task's parameter holdout."
            )
        order = torch.randperm(len(members), generator=rng)
        held[members[order[:number]]] = True
    return held
