"""Average precision of detection, as Pascal VOC counts it.

After the devkit's rules, as facebookresearch/detectron2@02b5c4e,
detectron2/evaluation/pascal_voc_evaluation.py:187-300 has them: of all boxes of a class, likeliest
first, one is right that overlaps by more than a half with an object of which no box was right
before; a box that overlaps most with a difficult object counts neither as right nor as wrong.
Differs: scores and boxes are not rounded, equally likely boxes keep the order of the images, and
the recalls at which eleven precisions are taken are those numbers exactly: there, a recall of
exactly 3/10, 6/10 or 7/10 falls short of its own by a rounding error.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mixbench.vision.average_precision import Curve
from mixbench.vision.box_iou import box_iou
from mixbench.vision.detection.boxes import CLASS, DIFFICULT, NOTHING, SCORE

OVERLAP = 0.5  # more is enough
CHUNK = 256  # images that are compared at once


def detection_curves(found: Tensor, targets: Tensor, classes: int) -> list[Curve | None]:
    """Return the precision and recall of every class after each of its boxes, likeliest first.

    Parameters
    ----------
    found : (N, D, 6)
    targets : (N, M, 6)

    Returns
    -------
    curves
        None for a class without objects that count.
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
    """Return which of a class's boxes, likeliest first, are right, and which of them count.

    Parameters
    ----------
    best, place, difficult : (n,)
        Of the object with which each box overlaps most: how much, which it is, and whether it is
        difficult.
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
    """Return every box's largest overlap with an object of its class, and that object, (N, D)."""
    parts = []
    for boxes, objects in zip(found.split(CHUNK), targets.split(CHUNK), strict=True):
        same = boxes[:, :, None, CLASS] == objects[:, None, :, CLASS]
        shares = box_iou(boxes[..., :4].double().numpy(), objects[..., :4].double().numpy())
        parts.append(torch.from_numpy(shares).masked_fill(~same, -1).max(2))
    return torch.cat([part.values for part in parts]), torch.cat([part.indices for part in parts])
