"""What is searched: ordered pairs of classes, each with a mask over the cells of a grid.

A pair (i, j) of C classes is the number i * C + j. A mask is an integer whose bit k says that cell
k, rows of cells first, comes from an image of class i; the other cells come from class j.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int32]
Masks = NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True)
class Space:
    """The pairs and masks that a search chooses from.

    Attributes
    ----------
    num_pairs
        Cross-class pairs in a solution: exactly so many, because a mean that is minimised over a
        free number of pairs is that of the single worst one.
    same_class
        Whether every solution also holds all pairs of a class with itself.
    """

    num_classes: int
    grid: int
    num_pairs: int
    same_class: bool = False

    @property
    def num_bits(self) -> int:
        """Cells of the grid."""
        return self.grid**2

    @property
    def num_cross(self) -> int:
        """Cross-class pairs that there are."""
        return self.num_classes * (self.num_classes - 1)

    @property
    def full(self) -> int:
        """The mask with every bit set."""
        return int((1 << self.num_bits) - 1)

    @cached_property
    def dtype(self) -> np.dtype[np.unsignedinteger[Any]]:
        """The smallest unsigned integer that holds a mask."""
        return np.min_scalar_type(self.full)

    @cached_property
    def left(self) -> int:
        """The cells of the left half; a middle column belongs to the right."""
        rows, columns = range(self.grid), range(self.grid // 2)
        return sum(1 << (row * self.grid + column) for row in rows for column in columns)

    @cached_property
    def same(self) -> Ids:
        """The same-class pairs of every solution, in order."""
        ids = np.arange(self.num_classes, dtype=np.int32) * (self.num_classes + 1)
        return ids if self.same_class else ids[:0]

    def cross(self, rank: NDArray[np.int64] | int) -> Ids:
        """Return the cross-class pair of a rank in [0, num_cross): all pairs without (i, i)."""
        first, second = np.divmod(rank, self.num_classes - 1)
        return np.asarray(first * self.num_classes + second + (second >= first), dtype=np.int32)

    def transpose(self, masks: Masks) -> Masks:
        """Return the masks with rows and columns exchanged."""
        turned = np.zeros_like(masks)
        one = masks.dtype.type(1)
        for cell in range(self.num_bits):
            row, column = divmod(cell, self.grid)
            to = masks.dtype.type(column * self.grid + row)
            turned |= ((masks >> masks.dtype.type(cell)) & one) << to
        return turned

    def bits(self, masks: Masks) -> NDArray[np.bool_]:
        """Return the masks' cells, (..., num_bits)."""
        shifts = np.arange(self.num_bits, dtype=np.uint64)
        return ((masks.astype(np.uint64)[..., None] >> shifts) & np.uint64(1)).astype(bool)

    def pack(self, bits: NDArray[np.bool_]) -> Masks:
        """Return the masks of cells, the inverse of `bits`."""
        shifts = np.arange(self.num_bits, dtype=np.uint64)
        packed = (bits.astype(np.uint64) << shifts).sum(-1, dtype=np.uint64)
        masks: Masks = packed.astype(self.dtype)
        return masks

    def ordered(self, ids: Ids, masks: Masks) -> tuple[Ids, Masks]:
        """Return the same compositions with the smaller class first: (j, i, M) is (i, j, not M)."""
        first, second = np.divmod(ids, self.num_classes)
        turned = first > second
        ids = np.where(turned, second * self.num_classes + first, ids)
        return ids, np.where(turned, masks ^ self.dtype.type(self.full), masks)

    def keys(self, ids: Ids, masks: Masks) -> NDArray[np.int64]:
        """Return one number for every (pair, mask)."""
        return (ids.astype(np.int64) << self.num_bits) | masks.astype(np.int64)
