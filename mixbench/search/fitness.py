"""Fitness of compositions: how well a model classifies their patches, for class pairs and masks.

The fitness of a solution is the mean score of its (pair, mask) items. The held-out images that are
composed for a pair are drawn once, so the score of an item does not depend on the other items.
Each distinct item is therefore scored once and its score is reused, with the same result as
scoring every solution separately. An item (j, i) under a mask equals the item (i, j) under the
mask's complement.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache, partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mixbench.contract import SINGLE, ClassIndex, Processes, Split
from mixbench.errors import DataError, UsageError
from mixbench.kernels import compose_grid
from mixbench.search.space import Ids, Masks, Space
from mixbench.streams import stream_seed
from mixbench.vision.images.splits import ImageSplit

Patches = Callable[[Tensor], Tensor]
READ = 256  # held-out images decoded at a time
ROWS = 512  # images in a forward pass
GROUP = 8  # forward passes of each process between two calls of `Scorer.after_group`
CACHED = 1 << 16  # class pairs whose image pairs are kept
SCREEN = 1 << 10  # above the number of image pairs of a screened pair


def device_memory() -> tuple[str, float]:
    """Return the name and the memory, in bytes, of the first GPU, or of the host without a GPU."""
    if torch.cuda.is_available():
        return "GPU", float(torch.cuda.get_device_properties(0).total_memory)
    return "machine", float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def unchanged(images: Tensor) -> Tensor:
    """Return the images; the normalisation of a split that stores normalised images."""
    return images


@dataclass(frozen=True)
class HeldOut:
    """The held-out images that compositions are made of.

    Attributes
    ----------
    images : (N, C, H, W)
        Images on the device of the model: the stored bytes, if the split stores bytes.
    by_class
        The positions of the images by class.
    seed
        Seed of the draw of image pairs.
    normalize
        Function from composed images to the input of the model. It changes every pixel by itself,
        so composing bytes first gives the same bits with a quarter of the memory.
    """

    images: Tensor
    by_class: ClassIndex
    seed: int
    normalize: Callable[[Tensor], Tensor] = unchanged

    @classmethod
    def of(cls, split: Split, seed: int, device: torch.device) -> "HeldOut":
        """Read a split with one class per image; the host holds only a few images at a time."""
        by_class = split.by_class
        assert by_class is not None
        split = split.to(device)
        read, normalize = partial(split.read, rng=None), unchanged
        if isinstance(split, ImageSplit):
            read, normalize = partial(split.fetch, draws=None), partial(split.finish, draws=None)
        images = torch.empty(0)
        for index in torch.arange(len(split)).split(READ):
            part = read(index)
            if not len(images):
                images = torch.empty(len(split), *part.shape[1:], dtype=part.dtype, device=device)
            images[int(index[0]) : int(index[-1]) + 1] = part.to(device)
        return cls(images, by_class, seed, normalize)

    @staticmethod
    def check_memory(split: Split, shape: tuple[int, int, int]) -> None:
        """Check that the images of a split fit into the memory of the device.

        Parameters
        ----------
        split
            The held-out images.
        shape : (C, H, W)
            Shape of an image.

        Raises
        ------
        UsageError
            If the images and a batch of compositions need more than the whole memory.
        """
        channels, height, width = shape
        value = 1 if isinstance(split, ImageSplit) else 4  # bytes of a value that is kept
        pixels = channels * height * width
        need = pixels * (len(split) * value + ROWS * (value + 4))
        name, memory = device_memory()
        if need > memory:
            raise UsageError(
                f"The search keeps {len(split):,} held-out images of {height}x{width} pixels in "
                f"memory, {need / 1e9:.3g} GB, more than the {name} has ({memory / 1e9:.3g} GB): "
                "reduce the task's parameter holdout, or its side."
            )

    def image_pairs(self, first: int, second: int, number: int) -> NDArray[np.int64]:
        """Return image pairs of a class pair, (2, number); they repeat only if too few exist.

        The pairs of (j, i) are those of (i, j) with both images exchanged. No image is paired with
        itself. A smaller number gives the first ones of a larger number.

        Raises
        ------
        DataError
            If a class has too few held-out images to form a pair.
        """
        if first > second:
            return self.image_pairs(second, first, number)[::-1]
        one, other = (self.by_class.members(c).numpy() for c in (first, second))
        pairs = np.stack([a.ravel() for a in np.meshgrid(one, other, indexing="ij")])
        pairs = pairs[:, pairs[0] != pairs[1]]
        if pairs.shape[1] == 0:
            raise DataError(
                f"The classes {first} and {second} have too few held-out images to compose: "
                f"{len(one)} and {len(other)}. Increase the task's `holdout`."
            )
        rng = np.random.default_rng([stream_seed(self.seed, "search"), first, second])
        order = rng.permutation(pairs.shape[1])
        return pairs[:, np.resize(order, number)]


@dataclass(frozen=True)
class Known:
    """Scores of items.

    Attributes
    ----------
    keys : (N,)
        Keys of the items in ascending order, as `Space.keys` returns them.
    scores : (N,)
        Their scores.
    """

    keys: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    scores: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))

    def has(self, keys: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which keys are known."""
        if not len(self.keys):
            return np.zeros(keys.shape, bool)
        at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        found: NDArray[np.bool_] = self.keys[at] == keys
        return found

    def of(self, keys: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the scores of known keys."""
        found: NDArray[np.float64] = self.scores[np.searchsorted(self.keys, keys)]
        return found

    def merged(self, other: "Known") -> "Known":
        """Return these scores and others, of other items."""
        at = np.searchsorted(self.keys, other.keys)
        return Known(np.insert(self.keys, at, other.keys), np.insert(self.scores, at, other.scores))


class Scorer:
    """Scores (pair, mask) items, each distinct item once.

    Parameters
    ----------
    space
        The pairs and masks to score.
    held_out
        The images to compose.
    patches
        Function from images, (B, C, H, W), to the logits of every cell, (B, cells, classes).
    per_pair
        Number of image pairs composed to score an item.
    by_loss
        Whether to score by the mean cross-entropy of the patches instead of their top-1 accuracy.
    rows
        Number of images in a forward pass. Batches are padded to it, so that no score depends on
        how many items are requested together.
    processes
        The processes that share the forward passes. All request the same items.

    Attributes
    ----------
    num_forwards
        Number of images passed through the model, by all processes together.
    num_requests
        Number of items requested.
    after_group
        Function called after every few forward passes, for progress and checkpoints.
    """

    def __init__(  # noqa: PLR0913  # what a score depends on
        self,
        space: Space,
        held_out: HeldOut,
        patches: Patches,
        per_pair: int,
        *,
        by_loss: bool,
        rows: int = ROWS,
        processes: Processes = SINGLE,
    ) -> None:
        self.space = space
        self.by_loss = by_loss
        self.num_forwards = 0
        self.num_requests = 0
        self.after_group: Callable[[], None] = lambda: None
        self._held_out = held_out
        self._patches = patches
        self._per_pair = per_pair
        self._rows = rows
        self._processes = processes
        self._image_pairs = lru_cache(CACHED)(self._draw)
        self._known = Known()
        self._fresh = Known()  # scored by the current request, not yet merged into the known ones
        self._earlier = Known()  # scored by an earlier process

    @property
    def num_items(self) -> int:
        """Number of distinct items scored."""
        return len(self._known.keys)

    @property
    def memory(self) -> "Known":
        """All scores, to be passed to the `recall` of a later process."""
        here = self._known.merged(self._fresh)
        later = ~here.has(self._earlier.keys)  # of an earlier process, not requested again so far
        return here.merged(Known(self._earlier.keys[later], self._earlier.scores[later]))

    def recall(self, earlier: "Known") -> None:
        """Take scores that an earlier process computed, when they are requested again."""
        self._earlier = earlier

    def __call__(self, ids: Ids, masks: Masks) -> NDArray[np.float64]:
        """Return item scores in the shape of `ids`: accuracy in [0, 1], or loss in nats."""
        ids, masks = self.space.ordered(ids, masks)
        keys = self.space.keys(ids, masks)
        self.num_requests += keys.size
        wanted, first = np.unique(keys, return_index=True)
        new = ~self._known.has(wanted)
        if new.any():
            cells = self.space.bits(masks.ravel()[first[new]])[:, None]
            self._score(wanted[new], ids.ravel()[first[new]], cells, self._per_pair)
        return self._known.of(keys)

    def screen(self, ids: Ids, masks: Masks) -> NDArray[np.float64]:
        """Return the mean score of each pair over images that are composed under different masks.

        Parameters
        ----------
        ids : (M,)
            The pairs in ascending order, with the smaller class first.
        masks : (M, n)
            The mask under which each of the first n image pairs of a pair is composed. It must be a
            function of the pair and of n.
        """
        number = masks.shape[1]
        keys = -1 - (ids[::-1].astype(np.int64) * SCREEN + number)  # ascending, no item's key
        self._score(keys, ids[::-1], self.space.bits(masks[::-1]), number)
        return self._known.of(keys)[::-1]

    def _score(
        self, keys: NDArray[np.int64], ids: Ids, cells: NDArray[np.bool_], number: int
    ) -> None:
        """Score items that have no score yet, each with a number of image pairs."""
        recalled = self._earlier.has(keys)
        fresh = Known(keys[recalled], self._earlier.of(keys[recalled]))
        self.num_forwards += int(recalled.sum()) * number
        missing = np.flatnonzero(~recalled)
        for rows in self._groups(len(missing), number):
            at = missing[rows]
            images = np.stack([self._image_pairs(int(i), number) for i in ids[at]])
            fresh = fresh.merged(Known(keys[at], self._shared(images, cells[at])))
            self._fresh = fresh
            self.after_group()
        self._known, self._fresh = self._known.merged(fresh), Known()

    def _groups(self, number: int, per_item: int) -> Iterator[slice]:
        """Split items into groups of a few forward passes for each process."""
        size = max(self._rows // per_item, 1) * GROUP * self._processes.world_size
        for start in range(0, number, size):
            yield slice(start, min(start + size, number))

    @torch.no_grad()
    def _shared(self, images: NDArray[np.int64], cells: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return the mean score of each item; every process computes some of the forward passes.

        Parameters
        ----------
        images : (M, 2, n)
            The image pairs of the items.
        cells : (M, n, num_bits) or (M, 1, num_bits)
            Whether a cell comes from the first image of a pair.
        """
        number, _, per_item = images.shape
        self.num_forwards += number * per_item
        size = max(self._rows // per_item, 1)
        first, second = images[:, 0, :, None], images[:, 1, :, None]
        index = torch.from_numpy(np.where(cells, first, second))  # (M, n, num_bits)
        totals = torch.zeros(number, dtype=torch.float64)
        starts = range(0, number, size)
        for start in starts[self._processes.rank :: self._processes.world_size]:
            part = index[start : start + size]
            per_image = self._forward(part.flatten(0, 1), size * per_item)
            totals[start : start + size] = per_image.view(len(part), per_item).sum(1)
        totals = self._processes.sum(totals)
        scores: NDArray[np.float64] = totals.numpy() / (per_item * self.space.num_bits)
        return scores

    def _forward(self, index: Tensor, rows: int) -> Tensor:
        """Return the summed scores of the cells of each composed image, in a pass of full size."""
        held = self._held_out
        padded = torch.cat([index, index[:1].expand(rows - len(index), -1)])
        mixed = compose_grid(held.images, padded.to(held.images.device), self.space.grid)
        logits = self._patches(held.normalize(mixed))[: len(index)].float().cpu()
        targets = held.by_class.classes[index]
        if not self.by_loss:
            return (logits.argmax(-1) == targets).double().sum(1)
        losses = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), targets.flatten(), reduction="none"
        )
        return losses.double().view(len(index), -1).sum(1)

    def _draw(self, pair: int, number: int) -> NDArray[np.int64]:
        return self._held_out.image_pairs(*divmod(pair, self.space.num_classes), number)
