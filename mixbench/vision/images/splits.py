"""Parts of a data set: resident on the device, or streamed from files; the same batches of both."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from mixbench.contract import ClassIndex
from mixbench.errors import DataError
from mixbench.vision.images.augment import Augmentation, CropFlip
from mixbench.vision.images.decode import read_image

THREADS = 8  # for items that are read outside the loader's processes


class Normalization(NamedTuple):
    """How pixels in [0, 1] are normalised, by channel."""

    mean: Sequence[float]
    std: Sequence[float]


IMAGENET_NORMALIZATION = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class ImageSplit:
    """What resident and streamed parts share: from stored pixels to a model's input.

    Parameters
    ----------
    max_value
        The stored value that is 1 after scaling.
    augment
        Of training batches.
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

    def __len__(self) -> int:
        return len(self.targets)

    def to(self, device: torch.device) -> Self:
        """Return the same split with its batches on a device; this one stays as it is."""
        moved = copy(self)
        moved.device = device
        return moved

    def unnormalized(self) -> Self:
        """Return the same part with images that are not normalised: pixels in [0, 1]."""
        plain, channels = copy(self), len(self._normalization.mean)
        plain._normalization = Normalization((0.0,) * channels, (1.0,) * channels)
        return plain

    def draw(self, number: int, rng: torch.Generator | None) -> Tensor | None:
        """Return the augmentation's draws for a batch; None where nothing is augmented."""
        return self.augment.draw(number, rng) if self.augment and rng is not None else None

    def fetch(self, index: Tensor, draws: Tensor | None) -> Tensor:
        """Return the items' stored normalization, cropped, uint8 (B, C, h, w)."""
        raise NotImplementedError

    def finish(self, images: Tensor, draws: Tensor | None) -> Tensor:
        """Return fetched items as a model takes them, float32 on the split's device."""
        images = images.to(self.device, non_blocking=True).to(torch.float32)
        mean, std = (images.new_tensor(values)[:, None, None] for values in self._normalization)
        if self.augment and draws is not None:
            images, scale = self.augment.color_jitter(images.div_(self._max_value), draws), 1 / std
        else:
            scale = 1 / (self._max_value * std)
        return images.mul_(scale).sub_(mean / std)

    def read(self, index: Tensor, rng: torch.Generator | None) -> Tensor:
        """Return the items' images, normalised; augmented from `rng` unless it is None."""
        draws = self.draw(len(index), rng)
        return self.finish(self.fetch(index, draws), draws)


class ResidentSplit(ImageSplit):
    """A part that stays in memory, and is augmented in batches where it lies.

    Parameters
    ----------
    images : (N, C, H, W) uint8
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

    def to(self, device: torch.device) -> Self:
        """Return the same split with its images on a device; this one stays as it is."""
        moved = super().to(device)
        moved.images = self.images.to(device)
        return moved

    def fetch(self, index: Tensor, draws: Tensor | None) -> Tensor:
        """Return the items' stored normalization, cropped, uint8 (B, C, H, W)."""
        images = self.images.index_select(0, index.to(self.device))
        if self._augment is None or draws is None:
            return images
        return self._augment.crop_batch(images, draws)


class StreamedSplit(ImageSplit):
    """A part whose images are read from files when they are needed.

    Parameters
    ----------
    paths
        Of the N images. They are kept as one array: a million objects would be copied into every
        process that reads.
    fit
        Brings an image, uint8 (3, H, W) of any size, to the size of all, where none is augmented.
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

    def path(self, item: int) -> Path:
        """Return an item's file."""
        return Path(os.fsdecode(self._paths[item]))

    def fetch(self, index: Tensor, draws: Tensor | None) -> Tensor:
        """Read, crop and stack the items, uint8 (B, 3, h, w), in the memory of the host."""
        rows: list[Tensor | None] = [None] * len(index) if draws is None else list(draws)
        if get_worker_info() is not None:
            return torch.stack([
                self._one(i, row) for i, row in zip(index.tolist(), rows, strict=True)
            ])
        with ThreadPoolExecutor(THREADS) as pool:
            return torch.stack(list(pool.map(self._one, index.tolist(), rows)))

    def _one(self, item: int, draws: Tensor | None) -> Tensor:
        image = read_image(self.path(item))
        if self.augment is None or draws is None:
            return self._fit(image)
        return self.augment.crop(image, draws)


def read_all(paths: Sequence[Path], size: tuple[int, int]) -> Tensor:
    """Return the images of files that all have one size, (N, 3, H, W) uint8.

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
    """Return which of so many items are held out, (number,) bool: at least one, drawn at random."""
    held = torch.zeros(number, dtype=torch.bool)
    held[torch.randperm(number, generator=rng)[: max(round(share * number), 1)]] = True
    return held


def stratified_holdout(classes: Tensor, share: float, rng: torch.Generator) -> Tensor:
    """Return which items are held out: the given share of every class, drawn at random.

    Returns
    -------
    held : (N,) bool

    Raises
    ------
    DataError
        If nothing of a class is held out, or nothing left to train on.
    """
    held = torch.zeros(len(classes), dtype=torch.bool)
    for name in classes.unique():
        members = torch.nonzero(classes == name).flatten()
        number = round(share * len(members))
        if not 0 < number < len(members):
            raise DataError(
                f"The held-out share must leave images of every class on both sides: class "
                f"{int(name)} has {len(members)}, of which {number} would be held out "
                f"(got {share})."
            )
        order = torch.randperm(len(members), generator=rng)
        held[members[order[:number]]] = True
    return held
