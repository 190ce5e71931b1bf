"""Fitness of compositions: how well a model classifies their patches, for class pairs and masks.

The fitness of a solution is the mean score of its (pair, mask) items. The held-out images that are
composed for a pair are drawn once, so the score of an item does not depend on the other items.
Each distinct item is therefore scored once and its score is reused, with the same result as
scoring every solution separately. An item (j, i) under a mask equals the item (i, j) under the
mask's complement.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mixbench.contract import ClassIndex
from mixbench.errors import DataError
from mixbench.kernels import compose_grid
from mixbench.search.space import Ids, Masks, Space
from mixbench.streams import stream_seed

Patches = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class HeldOut:
    """The held-out images that compositions are made of.

    Attributes
    ----------
    images : (N, C, H, W)
        Normalised images, on the device of the model.
    by_class
        The positions of the images by class.
    per_pair
        Number of image pairs composed for every class pair.
    seed
        Seed of the draw of image pairs.
    """

    images: Tensor
    by_class: ClassIndex
    per_pair: int
    seed: int

    def image_pairs(self, first: int, second: int) -> NDArray[np.int64]:
        """Return the image pairs of a class pair, (2, per_pair); they repeat only if too few exist.

        The pairs of (j, i) are those of (i, j) with both images exchanged. No image is paired with
        itself.

        Raises
        ------
        DataError
            If a class has too few held-out images to form a pair.
        """
        if first > second:
            return self.image_pairs(second, first)[::-1]
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
        return pairs[:, np.resize(order, self.per_pair)]


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
    by_loss
        Whether to score by the mean cross-entropy of the patches instead of their top-1 accuracy.
    rows
        Number of images in a forward pass. Batches are padded to it, so that no score depends on
        how many items are requested together.
    """

    def __init__(
        self, space: Space, held_out: HeldOut, patches: Patches, *, by_loss: bool, rows: int = 512
    ) -> None:
        self.space = space
        self.by_loss = by_loss
        self.num_forwards = 0
        self.num_requests = 0
        self._held_out = held_out
        self._patches = patches
        self._items = max(rows // held_out.per_pair, 1)
        self._images: dict[int, NDArray[np.int64]] = {}
        self._keys = np.empty(0, np.int64)
        self._scores = np.empty(0, np.float64)

    @property
    def num_items(self) -> int:
        """Number of distinct items scored."""
        return len(self._keys)

    @property
    def memory(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Keys of all scored items in ascending order, and their scores."""
        return self._keys, self._scores

    def recall(self, keys: NDArray[np.int64], scores: NDArray[np.float64]) -> None:
        """Load the keys and scores that an earlier process computed."""
        self._keys, self._scores = keys, scores

    def __call__(self, ids: Ids, masks: Masks) -> NDArray[np.float64]:
        """Return item scores in the shape of `ids`: accuracy in [0, 1], or loss in nats."""
        ids, masks = self.space.ordered(ids, masks)
        keys = self.space.keys(ids, masks)
        self.num_requests += keys.size
        wanted, first = np.unique(keys, return_index=True)
        new = ~np.isin(wanted, self._keys, assume_unique=True)
        if new.any():
            fresh = self._score(ids.ravel()[first[new]], masks.ravel()[first[new]])
            merged = np.concatenate([self._keys, wanted[new]])
            order = np.argsort(merged, kind="stable")
            self._keys = merged[order]
            self._scores = np.concatenate([self._scores, fresh])[order]
        found: NDArray[np.float64] = self._scores[np.searchsorted(self._keys, keys)]
        return found

    @torch.no_grad()
    def _score(self, ids: Ids, masks: Masks) -> NDArray[np.float64]:
        """Score items that have no score yet."""
        cells = self.space.bits(masks)
        chunks = [
            self._score_chunk(ids[start : start + self._items], cells[start : start + self._items])
            for start in range(0, len(ids), self._items)
        ]
        self.num_forwards += len(ids) * self._held_out.per_pair
        return np.concatenate(chunks)

    def _score_chunk(self, ids: Ids, cells: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Compose and score the items of one forward pass, padded to its full size."""
        held, device = self._held_out, self._held_out.images.device
        images = np.stack([self._pairs_of(int(i)) for i in ids])  # (items, 2, per_pair)
        own = np.repeat(cells, held.per_pair, axis=0)  # (rows, cells)
        first, second = images[:, 0].reshape(-1, 1), images[:, 1].reshape(-1, 1)
        index = torch.from_numpy(np.where(own, first, second))
        missing = self._items * held.per_pair - len(index)
        padded = torch.cat([index, index[:1].expand(missing, -1)]).to(device)
        logits = self._patches(compose_grid(held.images, padded, self.space.grid))
        logits = logits[: len(index)].float().cpu()
        targets = held.by_class.classes[index]
        if self.by_loss:
            flat = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), targets.flatten(), reduction="none"
            )
            per_row = flat.double().view(len(index), -1).sum(1)
        else:
            per_row = (logits.argmax(-1) == targets).double().sum(1)
        total = per_row.view(len(ids), held.per_pair).sum(1)
        scores: NDArray[np.float64] = total.numpy() / (held.per_pair * self.space.num_bits)
        return scores

    def _pairs_of(self, pair: int) -> NDArray[np.int64]:
        if pair not in self._images:
            first, second = divmod(pair, self.space.num_classes)
            self._images[pair] = self._held_out.image_pairs(first, second)
        return self._images[pair]
