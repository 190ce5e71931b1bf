"""Average precision of detection as defined by Pascal VOC.

The rules are those of the devkit, as implemented in facebookresearch/detectron2@02b5c4e,
detectron2/evaluation/pascal_voc_evaluation.py:187-300. The boxes of a class are sorted by
decreasing score. A box is matched with the object of its class with which it has the largest IoU,
and is correct if this IoU is larger than 0.5 and no earlier box was correct for the object. A box
that matches a difficult object counts neither as correct nor as wrong.

Differences: scores and boxes are not rounded. Boxes with equal scores keep the order of the images.
The eleven recalls at which precision is taken are exact; in the reference, a recall of exactly
3/10, 6/10 or 7/10 falls below its threshold because of a rounding error.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mixbench.vision.average_precision import Curve
from mixbench.vision.box_iou import box_iou
from mixbench.vision.detection.boxes import CLASS, DIFFICULT, NOTHING, SCORE

OVERLAP = 0.5  # a correct box has a larger IoU
CHUNK = 256  # images compared at once


def detection_curves(found: Tensor, targets: Tensor, classes: int) -> list[Curve | None]:
    """Return every class's precision and recall after each of its boxes, by decreasing score.

    Parameters
    ----------
    found : (N, D, 6)
        Predicted boxes with their classes and scores.
    targets : (N, M, 6)
        Frame of each image, and true boxes with their classes and difficult flags.
    classes
        Number of classes.

    Returns
    -------
    curves
        One curve per class; None for a class without objects that count.
    """
    names = targets[..., CLASS]
    counted = (names != NOTHING) & (targets[..., DIFFICULT] == 0)
    best, which = _most_overlapping(found, targets)
    place = torch.arange(len(found))[:, None] * targets.shape[1] + which
    difficult = (targets[..., DIFFICULT] == 1).gather(1, which)
    curves = []
    for name in range(classes):
        number = int((counted & (names == name)).sum())
        own = found[..., CLASS] == name
        order = found[own][:, SCORE].argsort(descending=True, stable=True)
        right, known = judged(*(part[own][order].numpy() for part in (best, place, difficult)))
        curves.append(_curve(right[known], number) if number else None)
    return curves


def judged(
    best: NDArray[np.float64], place: NDArray[np.int64], difficult: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which boxes of a class are correct and which of them count.

    The boxes are sorted by decreasing score.

    Parameters
    ----------
    best : (n,)
        Largest IoU of each box with an object of its class.
    place : (n,)
        Index of the object with which each box has its largest IoU.
    difficult : (n,)
        Whether that object is difficult.
    """
    hit = best > OVERLAP
    firsts = np.zeros(len(best), bool)
    hits = np.flatnonzero(hit)
    firsts[hits[np.unique(place[hits], return_index=True)[1]]] = True
    return firsts, ~(hit & difficult)


def _curve(right: NDArray[np.bool_], number: int) -> Curve:
    so_far = right.cumsum()
    return Curve(so_far / np.arange(1, len(right) + 1), so_far / number)


def _most_overlapping(found: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return every box's largest IoU with an object of its class, and that object, (N, D)."""
    parts = []
    for boxes, objects in zip(found.split(CHUNK), targets.split(CHUNK), strict=True):
        same = boxes[:, :, None, CLASS] == objects[:, None, :, CLASS]
        shares = box_iou(boxes[..., :4].double().numpy(), objects[..., :4].double().numpy())
        parts.append(torch.from_numpy(shares).masked_fill(~same, -1).max(2))
    return torch.cat([part.values for part in parts]), torch.cat([part.indices for part in parts])
