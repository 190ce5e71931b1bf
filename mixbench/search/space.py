"""The search space: ordered pairs of classes, each with a mask over the cells of a grid.

A pair (i, j) of C classes is the integer i * C + j. A mask is an integer. If bit k is 1, cell k
(in row-major order) comes from an image of class i, otherwise from an image of class j.
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
    num_classes
        Number of classes.
    grid
        Number of cells along each axis.
    num_pairs
        Exact number of cross-class pairs in a solution. The number is fixed because a mean
        minimised over a free number of pairs would keep only the single worst pair.
    same_class
        Whether every solution also contains the pairs of each class with itself.
    """

    num_classes: int
    grid: int
    num_pairs: int
    same_class: bool = False

    @property
    def num_bits(self) -> int:
        """Number of cells in the grid, which is the number of bits in a mask."""
        return self.grid**2

    @property
    def num_cross(self) -> int:
        """Number of all cross-class pairs."""
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
        """The mask of the left half; a middle column belongs to the right half."""
        rows, columns = range(self.grid), range(self.grid // 2)
        return sum(1 << (row * self.grid + column) for row in rows for column in columns)

    @cached_property
    def same(self) -> Ids:
        """The same-class pairs of every solution, in the order of the classes."""
        ids = np.arange(self.num_classes, dtype=np.int32) * (self.num_classes + 1)
        return ids if self.same_class else ids[:0]

    def cross(self, rank: NDArray[np.int64] | int) -> Ids:
        """Return the cross-class pair at index `rank` in [0, num_cross), in the order of pairs."""
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
        """Return the masks as boolean cells, (..., num_bits)."""
        shifts = np.arange(self.num_bits, dtype=np.uint64)
        return ((masks.astype(np.uint64)[..., None] >> shifts) & np.uint64(1)).astype(bool)

    def pack(self, bits: NDArray[np.bool_]) -> Masks:
        """Return the masks of boolean cells; the inverse of `bits`."""
        shifts = np.arange(self.num_bits, dtype=np.uint64)
        packed = (bits.astype(np.uint64) << shifts).sum(-1, dtype=np.uint64)
        masks: Masks = packed.astype(self.dtype)
        return masks

    def ordered(self, ids: Ids, masks: Masks) -> tuple[Ids, Masks]:
        """Return equal compositions with the smaller class first.

        The pair (j, i) under mask M is replaced by (i, j) under the complement of M.
        """
        first, second = np.divmod(ids, self.num_classes)
        turned = first > second
        ids = np.where(turned, second * self.num_classes + first, ids)
        return ids, np.where(turned, masks ^ self.dtype.type(self.full), masks)

    def keys(self, ids: Ids, masks: Masks) -> NDArray[np.int64]:
        """Return a unique integer for every (pair, mask)."""
        return (ids.astype(np.int64) << self.num_bits) | masks.astype(np.int64)
