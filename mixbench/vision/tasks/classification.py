"""Base class of tasks with one class per image: loss, metrics, classifier, validation split."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixbench.contract import Backbone, Normalization, Part, Predictions, Score, Task
from mixbench.errors import DataError
from mixbench.streams import generator
from mixbench.vision.images.lists import first_names
from mixbench.vision.images.splits import (
    IMAGENET_NORMALIZATION,
    stratified_draw,
    stratified_holdout,
)
from mixbench.vision.metrics import (
    ClassPredictions,
    calibration_error,
    cross_entropy,
    top1,
    top5,
)
from mixbench.vision.models.build import build
from mixbench.vision.models.weights import in_order, start_from

SCORES: Mapping[str, Callable[[ClassPredictions, Tensor], Score]] = {
    "top1": top1,
    "top5": top5,
    "cross_entropy": cross_entropy,
    "calibration_error": calibration_error,
}


class Classification(Task):
    """A task whose images have one class each.

    Parameters
    ----------
    classes
        Number of classes; if the data has more, the first ones are used.
    size : pixels
        Height and width of the model's input.
    pixels
        Mean and standard deviation of each channel, which normalise the images.

    Attributes
    ----------
    holdout
        Fraction of the training images of each class that is held out for validation; tasks make it
        a parameter.
    per_class
        Number of training images of each class that are used, before some are held out; 0 uses
        all. Tasks make it a parameter.
    weights
        Initial weights of training, as `mixbench.declare.Weights` says; tasks make it a parameter.
    """

    channels = 3
    normalization: Normalization
    holdout: float
    per_class: int = 0
    weights: str = "random"

    def __init__(
        self, classes: int, size: tuple[int, int], pixels: Normalization = IMAGENET_NORMALIZATION
    ) -> None:
        self.num_classes = classes
        self.image_size = size
        self.normalization = pixels

    def build(self, model: str) -> Backbone:
        """Return a backbone; for up to 64 pixels, small-image networks are preferred to timm's."""
        return build(model, classes=self.num_classes, size=self.image_size, channels=self.channels)

    def start(self, model: Backbone, trained: Mapping[str, Backbone]) -> None:
        """Load the initial weights that the parameter `weights` names."""
        start_from(model, self.weights, trained, self.normalization, in_order)

    def new_classifier(self, feature_dim: int) -> nn.Module:
        """Return a linear classifier for pooled features."""
        return nn.Linear(feature_dim, self.num_classes)

    def loss(self, out: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy of every image, (B,)."""
        return F.cross_entropy(out, targets, reduction="none")

    def score(self, predictions: Predictions, targets: Tensor) -> dict[str, Score]:
        """Return the score of every declared metric, also from compact predictions."""
        if "outputs" in predictions:
            found = ClassPredictions.of(predictions["outputs"], targets)
        else:
            found = ClassPredictions.of_rounded(predictions)
        return {metric.name: SCORES[metric.name](found, targets) for metric in self.metrics}

    def compact(self, predictions: Predictions, targets: Tensor) -> Predictions:
        """Return 5 to 9 bytes for each item instead of its logits."""
        found = ClassPredictions.of(predictions["outputs"], targets)
        five = any(metric.name == "top5" for metric in self.metrics)
        return found.rounded(self.num_classes, five=five)

    def in_part(self, part: Part, classes: Tensor, seed: int) -> Tensor:
        """Return a mask of the official training images that are in a split, (N,) bool.

        Parameters
        ----------
        part
            The training or the validation split.
        classes : (N,) int64
            Class index of each official training image.
        seed
            Seed of the random draws, which are the same for all methods.
        """
        used = torch.ones(len(classes), dtype=torch.bool)
        if self.per_class:
            used = stratified_draw(classes, self.per_class, generator(seed, "per_class"))
        held = stratified_holdout(classes[used], self.holdout, generator(seed, "split"))
        used[used.clone()] = held if part == "validation" else ~held
        return used

    def names_of(self, found: Sequence[str], where: Path) -> list[str]:
        """Return the names of the task's classes, which are the first of the data's classes."""
        return first_names(found, self.num_classes, self.data.name, where)


def check_classes(classes: Tensor, number: int, where: Path) -> None:
    """Check that all class indices are in range.

    Parameters
    ----------
    classes : (N,) int64
        Class index of each image.
    number
        Number of classes.
    where
        File that contains the class indices, for the error message.

    Raises
    ------
    DataError
        If a class index is not in 0..number - 1.
    """
    wrong = torch.nonzero((classes < 0) | (classes >= number)).flatten()
    if len(wrong):
        first = int(wrong[0])
        raise DataError(
            f"{where}: image {first} has class {int(classes[first])}, which must be in "
            f"0..{number - 1}."
        )
