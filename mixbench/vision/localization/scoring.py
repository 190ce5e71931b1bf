"""Localization scores of a classifier: the accuracy of its maps' boxes, and a baseline."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mixbench.contract import Score
from mixbench.vision.localization.box_accuracy import (
    OVERLAPS,
    SIDE,
    BoxAccuracy,
    best_overlaps,
    box_accuracy,
    centre_baseline,
)
from mixbench.vision.localization.cam import score_maps
from mixbench.vision.localization.components import Ints
from mixbench.vision.localization.pixel_precision import pixel_average_precision

CHUNK = 64  # maps upsampled at once


def enlarged(maps: Tensor) -> Iterator[NDArray[np.float64]]:
    """Yield every map as scores of the pixels of a square image, (SIDE, SIDE) in [0, 1]."""
    for some in maps.split(CHUNK):
        yield from score_maps(some, SIDE)


def map_overlaps(maps: Tensor, truths: Ints) -> NDArray[np.float64]:
    """Return the largest IoU of every map's boxes with true boxes, at every threshold, (N, 1000).

    Parameters
    ----------
    maps : (N, h, w)
        Class activation maps.
    truths : (N, n, 4)
        True boxes in the pixels of `SIDE` x `SIDE` images.
    """
    pairs = zip(enlarged(maps), truths, strict=True)
    return np.stack([best_overlaps(scores, truth) for scores, truth in pairs])


def localization_scores(
    maps: Tensor, truths: Ints, right: Tensor, masks: Tensor
) -> dict[str, Score]:
    """Return MaxBoxAccV2, MaxBoxAcc, top-1 localization accuracy and the centre baseline (%).

    With masks, return PxAP as well.

    Parameters
    ----------
    maps : (N, h, w)
        Class activation maps of the test images.
    truths : (N, n, 4)
        True boxes of the test images, in the pixels of `SIDE` x `SIDE` images.
    right : (N,) bool
        Whether each image is classified correctly. The top-1 localization accuracy is the
        percentage of images that are classified correctly and have a box with an IoU of at least
        0.5, at the threshold of MaxBoxAcc at 50 %.
    masks : (N, MASK_WORDS) int64
        Packed masks of the objects in the test images, or (N, 0).
    """
    best = map_overlaps(maps, truths)
    accuracy = box_accuracy(best)
    found = best[:, accuracy.curves[1].argmax()] >= 0.5  # at the threshold of MaxBoxAcc at 50 %
    scores = _box_scores(accuracy)
    fitting = [
        best[:, curve.argmax()] >= overlap / 100
        for overlap, curve in zip(OVERLAPS, accuracy.curves, strict=True)
    ]
    items = torch.from_numpy(100 * np.mean(fitting, 0))
    scores["max_box_acc_v2"] = scores["max_box_acc_v2"]._replace(items=items)
    scores["top1_loc"] = Score(100.0 * float((found & right.numpy()).mean()))
    scores["centre_baseline"] = Score(centre_baseline(truths).v2)
    if masks.numel():
        scores["pxap"] = Score(pixel_average_precision(enlarged(maps), masks))
    return scores


def _box_scores(accuracy: BoxAccuracy) -> dict[str, Score]:
    by_overlap = {f"max_box_acc_{at}": Score(value) for at, value in accuracy.best.items()}
    return {"max_box_acc_v2": Score(accuracy.v2), **by_overlap}
