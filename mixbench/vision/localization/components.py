"""Boxes of all connected components of a score map, at all thresholds in one pass.

When the threshold rises, components shrink, split and vanish, but never grow, so they form a tree.
The tree is built from the map's peaks and from the saddles at which components meet. Every pixel
belongs to the basin of the peak that steepest ascent from the pixel reaches. The part of a basin
above a threshold is connected, so a component is a set of basins, and its box is the union of the
boxes of these basins. Holes are the components of the inverted map. The algorithm merges a small
number of basins instead of labelling tens of thousands of pixels again at every threshold.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

LEVELS = 255  # integer thresholds 0..254 of a map whose largest value is 255
FINE = 256  # steps within a level, used only to order the pixels of a level by their scores
NOWHERE = 1 << 20  # initial bound, larger than the coordinates of every pixel


class Boxes(NamedTuple):
    """Boxes of components, one for each threshold at which a component exists.

    Attributes
    ----------
    threshold : (A,) int64
        Threshold of each box, in 0..255; the scores in a component are strictly larger.
    corners : (A, 4) int64
        First column, first row, last column plus one and last row plus one, clipped to the map's
        last pixel, which is the convention of wsolevaluation.
    """

    threshold: Ints
    corners: Ints


class Tree(NamedTuple):
    """Component tree of a map with M basins.

    Attributes
    ----------
    bounds : (M, 4, T) int64
        Smallest column, smallest row, negated largest column and negated largest row of each
        component, at every threshold.
    first : (M,) int64
        Lowest threshold at which each basin represents a component.
    last : (M,) int64
        Threshold from which on each basin no longer represents a component.
    """

    bounds: Ints
    first: Ints
    last: Ints


def boxes_of(scores: NDArray[np.float64]) -> Boxes:
    """Return the boxes of all components and all their holes, at every integer threshold.

    They equal those of ``cv2.findContours(RETR_TREE)`` on the scores times 255, truncated, as in
    clovaai/wsolevaluation@96f4b88, evaluation.py:122-182. Components are 8-connected, holes are
    4-connected, and the contour of a hole is the ring of pixels around it.

    Parameters
    ----------
    scores : (H, W) in [0, 1]
        Score map.
    """
    height, width = scores.shape
    end = np.array([width - 1, height - 1])
    fine = (scores * 255 * FINE).astype(np.int64)
    threshold, low, high = _components(component_tree(fine, diagonal=True))
    inverted = np.pad(LEVELS * FINE + FINE - 1 - fine, 1, constant_values=(LEVELS + 1) * FINE)
    tree = component_tree(inverted, diagonal=False)
    outside = tree.last == LEVELS + 1  # the component that holds the padding is no hole
    above, ring_low, ring_high = _components(tree._replace(last=np.where(outside, 0, tree.last)))
    corners = [
        np.concatenate([low, np.minimum(high + 1, end)], 1),
        # Subtract 1 for the padding; the ring around a hole adds 1 on each side.
        np.concatenate([ring_low - 2, np.minimum(ring_high + 1, end)], 1),
    ]
    return Boxes(np.concatenate([threshold, LEVELS - 1 - above]), np.concatenate(corners))


def _components(tree: Tree) -> tuple[Ints, Ints, Ints]:
    """Return the threshold, first column and row, and last column and row of all components."""
    thresholds = np.arange(tree.bounds.shape[2])
    there = (tree.first[:, None] <= thresholds) & (thresholds < tree.last[:, None])
    basin, threshold = np.nonzero(there)
    bounds = tree.bounds[basin, :, threshold]
    return threshold, bounds[:, :2], -bounds[:, 2:]


def component_tree(fine: Ints, *, diagonal: bool) -> Tree:
    """Return the component tree of a map's levels.

    Parameters
    ----------
    fine : (H, W)
        Levels times `FINE`, plus an offset that orders the pixels within a level.
    diagonal
        Whether pixels that touch only at a corner are connected.
    """
    basin, peaks = _basins(fine, diagonal=diagonal)
    level = fine // FINE
    last = level.ravel()[peaks]
    bounds = _bounds(basin, level, len(peaks), int(last.max()))
    first = np.zeros(len(peaks), np.int64)
    stands_for = list(range(len(peaks)))
    for saddle, one, other in _saddles(basin, level, len(peaks), diagonal=diagonal):
        high, low = _find(stands_for, one), _find(stands_for, other)
        if high == low:
            continue
        if last[high] < last[low]:
            high, low = low, high
        stands_for[low] = high
        first[low] = saddle
        below = slice(0, saddle)
        np.minimum(bounds[high, :, below], bounds[low, :, below], out=bounds[high, :, below])
    return Tree(bounds, first, last)


def _find(stands_for: list[int], basin: int) -> int:
    """Return the basin that represents the component of a basin (union-find)."""
    while stands_for[basin] != basin:
        stands_for[basin] = stands_for[stands_for[basin]]
        basin = stands_for[basin]
    return basin


def _basins(fine: Ints, *, diagonal: bool) -> tuple[Ints, Ints]:
    """Return every pixel's basin, (H, W), and the basins' peaks as flat pixel indices, (M,)."""
    bits = int(fine.size - 1).bit_length()
    pixel = np.arange(fine.size).reshape(fine.shape)
    upward = _largest_near(fine << bits | pixel, diagonal=diagonal).ravel() & ((1 << bits) - 1)
    while True:
        further = upward[upward]
        if np.array_equal(further, upward):
            break
        upward = further
    is_peak = upward == pixel.ravel()
    basin = (is_peak.cumsum() - 1)[upward]
    return basin.reshape(fine.shape), np.flatnonzero(is_peak)


def _largest_near(values: Ints, *, diagonal: bool) -> Ints:
    """Return the largest value among each pixel and its four or eight neighbours."""
    padded = np.pad(values, 1, constant_values=-1)
    column = np.maximum(np.maximum(padded[:-2], padded[2:]), padded[1:-1])
    if diagonal:
        row: Ints = np.maximum(np.maximum(column[:, :-2], column[:, 2:]), column[:, 1:-1])
        return row
    cross: Ints = np.maximum(np.maximum(padded[1:-1, :-2], padded[1:-1, 2:]), column[:, 1:-1])
    return cross


def _bounds(basin: Ints, level: Ints, number: int, top: int) -> Ints:
    """Return the bounds of every basin's pixels above every threshold, (M, 4, top)."""
    height, width = basin.shape
    at = np.full((4, number * (top + 1)), NOWHERE)
    rows, columns = np.repeat(np.arange(height), width), np.repeat(np.arange(width), height)
    by_row = (basin * (top + 1) + level).ravel()
    by_column = (basin * (top + 1) + level).T.ravel()
    # If an index repeats, NumPy keeps the last assigned value.
    at[0, by_column[::-1]], at[1, by_row[::-1]] = columns[::-1], rows[::-1]
    at[2, by_column], at[3, by_row] = -columns, -rows
    levels = at.reshape(4, number, top + 1)[:, :, :0:-1]  # pixels above a threshold
    above = np.minimum.accumulate(levels, 2)[:, :, ::-1]
    return np.ascontiguousarray(above.transpose(1, 0, 2))


def _saddles(
    basin: Ints, level: Ints, number: int, *, diagonal: bool
) -> Iterator[tuple[int, int, int]]:
    """Yield the level at which two basins meet and both basins, by decreasing level."""
    everything, before, after = slice(None), slice(None, -1), slice(1, None)
    steps = [
        ((everything, before), (everything, after)),
        ((before, everything), (after, everything)),
    ]
    if diagonal:
        steps += [((before, before), (after, after)), ((before, after), (after, before))]
    found = []
    for here, there in steps:
        one, other = basin[here], basin[there]
        edge = np.nonzero(one != other)
        one, other = one[edge], other[edge]
        meeting = np.minimum(level[here][edge], level[there][edge])
        pair = np.minimum(one, other) * number + np.maximum(one, other)
        found.append(pair * (LEVELS + 2) + LEVELS + 1 - meeting)
    ordered = np.unique(np.concatenate(found))
    pair, depth = np.divmod(ordered, LEVELS + 2)
    highest = np.flatnonzero(np.diff(pair, prepend=-1))
    highest = highest[depth[highest].argsort(kind="stable")]
    one, other = np.divmod(pair[highest], number)
    saddles = LEVELS + 1 - depth[highest]
    yield from zip(saddles.tolist(), one.tolist(), other.tolist(), strict=True)
