"""A landscape for searches whose optimum is known, at any number of classes.

The true score of a pair under a mask is an effect of the pair, plus one of every cell, plus one of
every two neighbouring cells. A search sees the share of hits among the patches of some images.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mixbench.search.fitness import Known
from mixbench.search.space import Ids, Masks, Space

KINDS = 509  # pairs of one kind have the same effects of cells
LEVEL, PAIRS, CELLS, NEIGHBOURS = 0.6, 0.08, 0.02, 0.01  # mean, and standard deviations of effects


@dataclass
class Landscape:
    """Scores of items, drawn as hits of patches, and the images that they took.

    Attributes
    ----------
    space
        The pairs and masks, on a grid of 4x4 cells.
    per_pair
        Number of images that score an item.
    noisy
        Whether scores are drawn; otherwise they are the true ones.
    num_forwards
        Number of images that the scores took.
    """

    space: Space
    per_pair: int
    noisy: bool = True
    num_forwards: int = 0
    _known: Known = field(default_factory=Known)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(1)
        number = self.space.num_classes**2
        self._pairs = rng.normal(LEVEL, PAIRS, number).astype(np.float32)
        effects = [rng.normal(0, CELLS, (KINDS, 16)), rng.normal(0, NEIGHBOURS, (KINDS, 24))]
        self._effects = np.concatenate(effects, 1).astype(np.float32)
        self._noise = np.random.default_rng(2)

    def true(self, ids: Ids, masks: Masks) -> NDArray[np.float64]:
        """Return the true scores of items."""
        ids, masks = self.space.ordered(ids, masks)
        effect = np.einsum("...k,...k->...", self._features[masks], self._effects[ids % KINDS])
        scores: NDArray[np.float64] = np.clip(self._pairs[ids] + effect, 0.0, 1.0)
        return scores.astype(np.float64)

    def __call__(self, ids: Ids, masks: Masks) -> NDArray[np.float64]:
        """Return the scores of items, each drawn once."""
        ids, masks = self.space.ordered(ids, masks)
        keys = self.space.keys(ids, masks)
        wanted, first = np.unique(keys, return_index=True)
        new = ~self._known.has(wanted)
        true = self.true(ids.ravel()[first[new]], masks.ravel()[first[new]])
        self._known = self._known.merged(Known(wanted[new], self._drawn(true, self.per_pair)))
        return self._known.of(keys)

    def screen(self, ids: Ids, masks: Masks) -> NDArray[np.float64]:
        """Return the mean scores of pairs over images under different masks."""
        parts = zip(np.array_split(ids, 64), np.array_split(masks, 64), strict=True)
        means = [self._drawn(self.true(i[:, None], m), 1).mean(1) for i, m in parts]
        return np.concatenate(means)

    def _drawn(self, true: NDArray[np.float64], images: int) -> NDArray[np.float64]:
        self.num_forwards += true.size * images
        if not self.noisy:
            return true
        patches = images * self.space.num_bits
        drawn: NDArray[np.float64] = self._noise.binomial(patches, true) / patches
        return drawn

    @cached_property
    def _features(self) -> NDArray[np.float32]:
        """Cells and products of neighbouring cells of all masks, (65536, 40)."""
        signs = 2 * self.space.bits(np.arange(1 << 16, dtype=np.uint16)).astype(np.float32) - 1
        grid = signs.reshape(-1, 4, 4)
        across = (grid[:, :, 1:] * grid[:, :, :-1]).reshape(-1, 12)
        down = (grid[:, 1:] * grid[:, :-1]).reshape(-1, 12)
        return np.concatenate([signs, across, down], 1)

    @cached_property
    def optimum(self) -> float:
        """The lowest mean of a solution, in which a pair may occur in both orders."""
        lowest = (self._features @ self._effects.T).min(0)
        ids = np.arange(self.space.num_classes**2)
        ids = ids[ids // self.space.num_classes < ids % self.space.num_classes]
        scores = np.clip(self._pairs[ids] + lowest[ids % KINDS], 0.0, 1.0)
        return float(np.sort(np.repeat(scores, 2))[: self.space.num_pairs].mean())

    def share(self, ids: Ids, masks: Masks) -> float:
        """Return the share of the possible gain over random solutions, on the true scores."""
        return self.share_of(float(self.true(ids, masks).mean()))

    def share_of(self, score: float) -> float:
        """Return the share of the possible gain that a true mean score has."""
        return (LEVEL - score) / (LEVEL - self.optimum)
