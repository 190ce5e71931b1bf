"""Average precision of detection as defined by COCO, computed with pycocotools."""

import contextlib
import io
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from pydantic import JsonValue
from torch import Tensor

from mixbench.vision.detection.boxes import CLASS, DIFFICULT, NOTHING, SCORE

Floats = NDArray[np.float64]
OVERLAPS = {"ap50": 0, "ap75": 5}  # indices of COCO's IoU thresholds, .5 to .95


class CocoAP(NamedTuple):
    """COCO's average precision, the mean over the classes with objects, in [0, 1].

    Attributes
    ----------
    ap
        Mean average precision over the IoU thresholds .5, .55, ..., .95.
    ap50
        Average precision at an IoU threshold of .5.
    ap75
        Average precision at an IoU threshold of .75.
    """

    ap: float
    ap50: float
    ap75: float


def coco_ap(found: Tensor, targets: Tensor, classes: int) -> CocoAP:
    """Return COCO's average precision over objects of all sizes, with up to 100 boxes per image.

    Difficult objects are treated like crowds in COCO: boxes that match them count neither as
    correct nor as wrong.

    Parameters
    ----------
    found : (N, D, 6)
        Predicted boxes with their classes and scores.
    targets : (N, M, 6)
        Frame of each image, and true boxes with their classes and difficult flags.
    classes
        Number of classes.
    """
    rows = _results(found)
    if len(rows) == 0:
        return CocoAP(0.0, 0.0, 0.0)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
        truth = COCO()
        truth.dataset = coco_truth(targets, classes)
        truth.createIndex()
        scorer = COCOeval(truth, truth.loadRes(rows), "bbox")
        scorer.params.areaRng, scorer.params.areaRngLbl = [[0, 1e10]], ["all"]
        scorer.params.maxDets = [100]
        scorer.evaluate()
        scorer.accumulate()
    precision = scorer.eval["precision"]  # IoU, recall, class, 1, 1; -1 without objects
    at = {name: _mean(precision[place]) for name, place in OVERLAPS.items()}
    return CocoAP(_mean(precision), **at)


def _mean(precision: Floats) -> float:
    known = precision[precision > -1]
    return float(known.mean()) if len(known) else 0.0


def coco_truth(targets: Tensor, classes: int) -> dict[str, list[dict[str, JsonValue]]]:
    """Return the true objects in COCO's format, with box edges counted from 0."""
    places = torch.nonzero(targets[..., CLASS] != NOTHING)
    objects = targets[places[:, 0], places[:, 1]].double().numpy()
    boxes = _corner_and_size(objects)
    annotations = [
        {
            "id": number,
            "image_id": image,
            "category_id": int(thing[CLASS]),
            "bbox": box.tolist(),
            "area": float(box[2] * box[3]),
            "iscrowd": int(thing[DIFFICULT]),
        }
        for number, (image, thing, box) in enumerate(
            zip(places[:, 0].tolist(), objects, boxes, strict=True), 1
        )
    ]
    return {
        "images": [{"id": image} for image in range(len(targets))],
        "categories": [{"id": name} for name in range(classes)],
        "annotations": annotations,
    }


def _results(found: Tensor) -> Floats:
    """Return the predictions in pycocotools' format, (n, 7): image, box, score and class."""
    places = torch.nonzero(found[..., CLASS] != NOTHING)
    rows = found[places[:, 0], places[:, 1]].double().numpy()
    columns = (places[:, :1].numpy(), _corner_and_size(rows), rows[:, [SCORE, CLASS]])
    return np.concatenate(columns, 1)


def _corner_and_size(rows: Floats) -> Floats:
    """Return the left edge, top edge, width and height of each box."""
    corner = rows[:, :2] - 1
    return np.concatenate([corner, rows[:, 2:4] - corner], 1)
