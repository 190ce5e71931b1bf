"""What localization tasks share: class activation maps as predictions, and their scores."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mixbench.contract import (
    Backbone,
    ClassIndex,
    Output,
    Predictions,
    Score,
    Split,
    Task,
    check_maps,
    class_maps,
)
from mixbench.errors import DataError
from mixbench.vision.images.augment import CROP_PCT, WindowFlip, resize
from mixbench.vision.images.splits import StreamedSplit
from mixbench.vision.localization.box_accuracy import resized
from mixbench.vision.localization.components import Ints
from mixbench.vision.localization.pixel_precision import MASK_WORDS
from mixbench.vision.localization.scoring import localization_scores
from mixbench.vision.metrics import mean_of
from mixbench.vision.models.build import sized
from mixbench.vision.models.large_map import LARGE_MAP
from mixbench.vision.models.weights import start_from
from mixbench.vision.tasks.classification import Classification

MOST_BOXES = MASK_WORDS // 4


class Localization(Task):
    """A task that scores where a classifier sees the class.

    Targets of validation and test are the classes and the true boxes in images of 224x224 pixels,
    (N, 1 + 4 n) int64; where masks exist, they follow, (N, 1 + 4 n + `MASK_WORDS`).
    """

    def predict(
        self,
        model: Backbone,
        read: Callable[[Output], Tensor],
        images: Tensor,
        targets: Tensor,
    ) -> dict[str, Tensor]:
        """Return the logits and the class activation maps of the true classes, (B, h, w)."""
        output = model(images)
        maps = class_maps(model, output.features, classes_of(targets))
        return {"outputs": read(output), "maps": maps}

    def score(self, predictions: Predictions, targets: Tensor) -> dict[str, Score]:
        """Return the classification accuracy, the box accuracies and the joint accuracy."""
        truths = truths_of(targets)
        right = predictions["outputs"].argmax(1) == truths.classes
        scores = localization_scores(predictions["maps"], truths.boxes, right, truths.masks)
        scores["top1"] = mean_of(100.0 * right)
        return {metric.name: scores[metric.name] for metric in self.metrics}

    def compact(self, predictions: Predictions, targets: Tensor) -> Predictions:  # noqa: ARG002
        """Return nothing: the scores need the maps."""
        return {}


class TrainedLocalization(Localization, Classification):
    """A localization task that trains its classifiers, as in clovaai/wsolevaluation.

    Parameters
    ----------
    classes
        Number of classes.
    side : pixels
        Side of the squares to which images are resized, regardless of their aspect ratios.
    large_map
        Whether the last feature maps of resnet50, vgg16 and inception_v3 are 28x28 instead of
        14x14.
    weights
        Initial weights of the model.
    """

    def __init__(self, classes: int, side: int, *, large_map: bool, weights: str) -> None:
        super().__init__(classes, (side, side))
        self.large_map, self.weights = large_map, weights
        self._augment = WindowFlip(round(side / CROP_PCT), side)
        self._fit = partial(resize, size=self.image_size)

    def split(self, paths: list[Path], targets: Tensor) -> Split:
        """Return a split of images with these targets, of which the first are the classes."""
        index = ClassIndex(classes_of(targets), self.num_classes)
        return StreamedSplit(
            paths, targets, index, self.normalization, self._augment, fit=self._fit
        )

    def measured(
        self,
        paths: list[Path],
        classes: Tensor,
        boxes: NDArray[np.int64],
        sizes: NDArray[np.int64],
        masks: Tensor | None = None,
    ) -> Split:
        """Return a split with ground-truth boxes, of the classes that are used.

        Parameters
        ----------
        paths
            Paths of the N images.
        classes : (N,) int64
            Their classes.
        boxes : (N, n, 4) int64
            First column, first row, last column and last row of each box.
        sizes : (N, 2) int64
            Width and height of the images in pixels.
        masks : (N, MASK_WORDS) int64
            Packed masks of the objects; None if there are none.

        Raises
        ------
        DataError
            If an image has too many boxes.
        """
        if boxes.shape[1] >= MOST_BOXES:
            raise DataError(
                f"An image must have fewer than {MOST_BOXES} boxes (got {boxes.shape[1]})."
            )
        truths = [torch.from_numpy(resized(boxes, sizes)).flatten(1)]
        truths += [] if masks is None else [masks]
        kept = classes < self.num_classes
        targets = torch.cat([classes[:, None], *truths], 1)[kept]
        return self.split([p for p, there in zip(paths, kept.tolist(), strict=True) if there],
                          targets)  # fmt: skip

    def build(self, model: str) -> Backbone:
        """Return a backbone that supports class activation maps."""
        if model not in LARGE_MAP:
            net = super().build(model)
        else:
            large = LARGE_MAP[model](self.num_classes, large=self.large_map)
            net = sized(large, self.channels, self.image_size)
        check_maps(net, model)
        return net

    def start(self, model: Backbone, trained: Mapping[str, Backbone]) -> None:
        """Load the initial weights of the model, as given by `weights`."""
        start_from(model, self.weights, trained, self.normalization)

    def loss(self, out: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy of every image, (B,)."""
        return super().loss(out, classes_of(targets))


class Truths(NamedTuple):
    """What the targets of a localization task's validation or test split hold.

    Attributes
    ----------
    classes : (N,) int64
        Classes of the images.
    boxes : (N, n, 4) int64
        True boxes.
    masks : (N, MASK_WORDS) int64
        Packed masks of the objects; (N, 0) if there are none.
    """

    classes: Tensor
    boxes: Ints
    masks: Tensor


def truths_of(targets: Tensor) -> Truths:
    """Return what targets with boxes hold."""
    # Fewer boxes than this fit into the numbers of a mask, so the width tells.
    end = targets.shape[1] - (MASK_WORDS if targets.shape[1] > MASK_WORDS else 0)
    boxes = targets[:, 1:end].unflatten(1, (-1, 4)).numpy()
    return Truths(targets[:, 0], boxes, targets[:, end:])


def classes_of(targets: Tensor) -> Tensor:
    """Return the classes of targets with or without boxes, (B,)."""
    return targets if targets.dim() == 1 else targets[:, 0]
