"""MaxBoxAcc and MaxBoxAccV2: how many images have a box that fits the true one.

After Choe et al., Evaluating Weakly Supervised Object Localization Methods Right, CVPR 2020,
arXiv:2001.07437, and exactly as clovaai/wsolevaluation@96f4b88, evaluation.py:46-103 and 260-346
computes them: overlaps count pixels at both ends (+1), a map's best component counts at each
threshold, and the best threshold is taken over the evaluated images, for each overlap by itself.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mixbench.vision.box_iou import box_iou
from mixbench.vision.localization.components import LEVELS, Boxes, Ints, boxes_of

Floats = NDArray[np.float64]

SIDE = 224  # pixels of the maps and of the true boxes, whatever the images' sizes
OVERLAPS = (30, 50, 70)  # percent
GRID = np.arange(0, 1, 0.001)  # thresholds, in parts of a map's largest level


class BoxAccuracy(NamedTuple):
    """The share of images with a fitting box.

    Attributes
    ----------
    curves : (3, 1000), in percent
        At every overlap of `OVERLAPS` and every threshold of `GRID`.
    """

    curves: Floats

    @property
    def best(self) -> dict[int, float]:
        """MaxBoxAcc by overlap, each at the threshold that is best for it."""
        return dict(zip(OVERLAPS, self.curves.max(1).tolist(), strict=True))

    @property
    def thresholds(self) -> dict[int, float]:
        """The first best thresholds by overlap."""
        return dict(zip(OVERLAPS, GRID[self.curves.argmax(1)].tolist(), strict=True))

    @property
    def v2(self) -> float:
        """MaxBoxAccV2, the mean of MaxBoxAcc over the overlaps."""
        return float(self.curves.max(1).mean())


def resized(boxes: NDArray[np.int64], sizes: NDArray[np.int64], side: int = SIDE) -> Ints:
    """Return boxes as they lie in images resized to a square, truncated to pixels.

    Parameters
    ----------
    boxes : (N, n, 4)
        First column, first row, last column, last row.
    sizes : (N, 2)
        Width and height of the images.
    """
    ends = np.concatenate([sizes, sizes], 1)[:, None].astype(np.float64)
    scaled: Ints = (boxes.astype(np.float64) * float(side) / ends).astype(np.int64)
    return scaled


def best_overlaps(scores: Floats, truth: Ints) -> Floats:
    """Return a map's largest overlap with true boxes, at every threshold of `GRID`, (1000,).

    Parameters
    ----------
    scores : (H, W) in [0, 1]
    truth : (n, 4)
        In the map's pixels.
    """
    peak = int(scores.max() * LEVELS)
    if peak == 0:  # nothing is above any threshold: the reference's box of one pixel
        return np.full(len(GRID), box_iou(np.zeros((1, 4), np.int64), truth).max())
    return _best(boxes_of(scores), truth, peak)


def _best(found: Boxes, truth: Ints, peak: int) -> Floats:
    """Return the boxes' largest overlaps at every threshold of `GRID`, in parts of a peak."""
    best = np.zeros(peak)
    np.maximum.at(best, found.threshold, box_iou(found.corners, truth).max(1))
    at_grid: Floats = best[(GRID * peak).astype(np.int64)]
    return at_grid


def box_accuracy(best: Floats) -> BoxAccuracy:
    """Return the accuracy of images with the given best overlaps, (N, 1000)."""
    fits = [best >= overlap / 100 for overlap in OVERLAPS]
    return BoxAccuracy(np.stack([fit.sum(0) * 100.0 / len(best) for fit in fits]))


def fitting_box(scores: Floats, truth: Ints, threshold: float) -> Ints:
    """Return the box at a threshold of `GRID` that overlaps most with true ones, (4,)."""
    level = int(threshold * int(scores.max() * LEVELS))
    found = boxes_of(scores)
    there = found.corners[found.threshold == level]
    if len(there) == 0:
        return np.zeros(4, np.int64)
    chosen: Ints = there[box_iou(there, truth).max(1).argmax()]
    return chosen


@cache
def centre_map(side: int = SIDE) -> Floats:
    """Return a map that knows nothing but where photographers aim: a Gaussian about the centre."""
    squares = (np.arange(side) - side // 2) ** 2
    bell = np.exp(-(squares[:, None] + squares[None]) / (2 * (side / 4) ** 2))
    bell -= bell.min()
    normal: Floats = bell / bell.max()
    return normal


def centre_baseline(truths: Ints) -> BoxAccuracy:
    """Return the accuracy of `centre_map` on images with these true boxes, (N, n, 4)."""
    found = boxes_of(centre_map())
    return box_accuracy(np.stack([_best(found, truth, LEVELS) for truth in truths]))
