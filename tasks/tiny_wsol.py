"""Tiny-ImageNet localization: where classifiers of tiny_imagenet see the objects.

Data     that of tiny_imagenet, whose annotations have one box per image
Licence  ImageNet's terms: non-commercial research and teaching only
Split    test: the official 10,000 validation images, or those of the classes of tiny_imagenet; the
         model is trained on tiny_imagenet, without boxes, with the same method and seed
Source   MaxBoxAccV2 of clovaai/wsolevaluation@96f4b88, as for cub_wsol
Differs  from the source: images have 64x64 pixels, and there is no validation with boxes
Expect   no published number; centred squares, which do not depend on the image, are a column
"""

from pathlib import Path

import numpy as np
import torch

from mixbench.contract import Backbone, Evaluation, Part, Split, check_maps
from mixbench.declare import MAX_BOX_ACC, Weights
from mixbench.errors import DataError
from mixbench.vision.images.lists import read_lines
from mixbench.vision.images.splits import ResidentSplit
from mixbench.vision.localization.box_accuracy import resized
from mixbench.vision.localization.task import Localization

from .tiny_imagenet import ROOT, SIDE, TinyImagenet

CORNERS = 4  # numbers of a box: first column, first row, last column, last row


class TinyWsol(Localization, Evaluation):
    """Locate the objects of small photographs by the classifier's activation maps.

    Parameters
    ----------
    weights
        Weights of the classifier: ``pretrained`` for the model that the same method trains on
        tiny_imagenet.
    """

    version = 1
    evaluates = "tiny_imagenet"
    metrics = MAX_BOX_ACC
    base_task: TinyImagenet

    def __init__(self, weights: Weights = "pretrained") -> None:
        super().__init__(weights)

    def build(self, model: str) -> Backbone:
        """Return a backbone that supports class activation maps."""
        net = super().build(model)
        check_maps(net, model)
        return net

    def load(self, part: Part, folder: Path, seed: int) -> Split:
        """Read the test images; their targets are the classes and boxes, (N, 5) int64.

        Raises
        ------
        DataError
            If an image has no box.
        """
        split = super().load(part, folder, seed)
        assert isinstance(split, ResidentSplit)
        boxes = read_boxes(folder / ROOT / "val" / "val_annotations.txt")
        names = [path.name for path in self.base_task.listing(part, folder, seed).paths]
        found = np.array([boxes[name] for name in names], np.int64)[:, None]
        truths = torch.from_numpy(resized(found, np.full((len(names), 2), SIDE))).flatten(1)
        return split.with_targets(torch.cat([split.targets[:, None], truths], 1))


def read_boxes(path: Path) -> dict[str, list[int]]:
    """Return the box in each line of an annotation file, by the image's name.

    Raises
    ------
    DataError
        If a line does not end with a box.
    """
    boxes = {}
    for number, line in enumerate(read_lines(path), 1):
        name, _, *box = line.split("\t")
        if len(box) != CORNERS or not all(text.isdecimal() for text in box):
            raise DataError(
                f"{path}, line {number}: must end with the box's first column, first row, last "
                f"column and last row (got {line!r})."
            )
        boxes[name] = [int(text) for text in box]
    return boxes
