"""MaxBoxAcc and MaxBoxAccV2: the percentage of images with a box that fits a true box.

Defined by Choe et al., Evaluating Weakly Supervised Object Localization Methods Right, CVPR 2020,
arXiv:2001.07437, and computed exactly as in clovaai/wsolevaluation@96f4b88, evaluation.py:46-103
and 260-346. The intersection over union (IoU) counts the pixels at both ends (+1). At each
threshold, the best component of a map counts. The best threshold is chosen on the evaluated
images, separately for each required IoU.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mixbench.vision.box_iou import box_iou
from mixbench.vision.localization.components import LEVELS, Boxes, Ints, boxes_of

Floats = NDArray[np.float64]

SIDE = 224  # side in pixels of maps and true boxes, for images of all sizes
OVERLAPS = (30, 50, 70)  # required IoU in percent
GRID = np.arange(0, 1, 0.001)  # thresholds, as fractions of a map's largest level


class BoxAccuracy(NamedTuple):
    """Percentage of images with a fitting box.

    Attributes
    ----------
    curves : (3, 1000), in percent
        Accuracy at every required IoU of `OVERLAPS` and every threshold of `GRID`.
    """

    curves: Floats

    @property
    def best(self) -> dict[int, float]:
        """MaxBoxAcc by required IoU, each at the threshold that is best for it."""
        return dict(zip(OVERLAPS, self.curves.max(1).tolist(), strict=True))

    @property
    def thresholds(self) -> dict[int, float]:
        """The best threshold by required IoU; the lowest one if several are best."""
        return dict(zip(OVERLAPS, GRID[self.curves.argmax(1)].tolist(), strict=True))

    @property
    def v2(self) -> float:
        """MaxBoxAccV2, the mean of MaxBoxAcc over the required IoUs."""
        return float(self.curves.max(1).mean())


def resized(boxes: NDArray[np.int64], sizes: NDArray[np.int64], side: int = SIDE) -> Ints:
    """Scale boxes to images that are resized to a square, and truncate them to whole pixels.

    Parameters
    ----------
    boxes : (N, n, 4)
        First column, first row, last column, last row.
    sizes : (N, 2)
        Width and height of the images.
    side : pixels
        Side of the square.
    """
    ends = np.concatenate([sizes, sizes], 1)[:, None].astype(np.float64)
    scaled: Ints = (boxes.astype(np.float64) * float(side) / ends).astype(np.int64)
    return scaled


def best_overlaps(scores: Floats, truth: Ints) -> Floats:
    """Return a map's largest IoU with true boxes at each threshold of `GRID`, (1000,).

    Parameters
    ----------
    scores : (H, W) in [0, 1]
        Score map.
    truth : (n, 4)
        True boxes in the map's pixels.
    """
    peak = int(scores.max() * LEVELS)
    if peak == 0:  # nothing is above any threshold: one pixel, as in the reference
        return np.full(len(GRID), box_iou(np.zeros((1, 4), np.int64), truth).max())
    return _best(boxes_of(scores), truth, peak)


def _best(found: Boxes, truth: Ints, peak: int) -> Floats:
    """Return the boxes' largest IoU at each threshold of `GRID`, taken as a fraction of `peak`."""
    best = np.zeros(peak)
    np.maximum.at(best, found.threshold, box_iou(found.corners, truth).max(1))
    at_grid: Floats = best[(GRID * peak).astype(np.int64)]
    return at_grid


def box_accuracy(best: Floats) -> BoxAccuracy:
    """Return the accuracy from every image's largest IoU at each threshold, (N, 1000)."""
    fits = [best >= overlap / 100 for overlap in OVERLAPS]
    return BoxAccuracy(np.stack([fit.sum(0) * 100.0 / len(best) for fit in fits]))


def fitting_box(scores: Floats, truth: Ints, threshold: float) -> Ints:
    """Return the box at a threshold of `GRID` with the largest IoU with a true box, (4,)."""
    level = int(threshold * int(scores.max() * LEVELS))
    found = boxes_of(scores)
    there = found.corners[found.threshold == level]
    if len(there) == 0:
        return np.zeros(4, np.int64)
    chosen: Ints = there[box_iou(there, truth).max(1).argmax()]
    return chosen


@cache
def centre_map(side: int = SIDE) -> Floats:
    """Return a Gaussian about the centre: a score map that ignores the image."""
    squares = (np.arange(side) - side // 2) ** 2
    bell = np.exp(-(squares[:, None] + squares[None]) / (2 * (side / 4) ** 2))
    bell -= bell.min()
    normal: Floats = bell / bell.max()
    return normal


def centre_baseline(truths: Ints) -> BoxAccuracy:
    """Return the accuracy of `centre_map` on images with the given true boxes, (N, n, 4)."""
    found = boxes_of(centre_map())
    return box_accuracy(np.stack([_best(found, truth, LEVELS) for truth in truths]))
