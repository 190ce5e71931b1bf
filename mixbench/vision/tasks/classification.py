"""What tasks with one class per image share: loss, scores, classifier, and the held-out part."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixbench.contract import Backbone, Part, Predictions, Score, Task
from mixbench.errors import DataError
from mixbench.streams import generator
from mixbench.vision.images.lists import first_names
from mixbench.vision.images.splits import IMAGENET_NORMALIZATION, Normalization, stratified_holdout
from mixbench.vision.metrics import calibration_error, cross_entropy, top1, top5
from mixbench.vision.models.build import build

SCORES: Mapping[str, Callable[[Tensor, Tensor], Score]] = {
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
        How many: the first ones, where the data has more.
    size : pixels
        Height and width of what the model sees.
    normalization
        How images are normalised.
    """

    channels = 3

    def __init__(
        self, classes: int, size: tuple[int, int], pixels: Normalization = IMAGENET_NORMALIZATION
    ) -> None:
        self.num_classes = classes
        self.image_size = size
        self.normalization = pixels

    def build(self, model: str) -> Backbone:
        """Return a backbone; up to 64 pixels, the nets for small images come before timm's."""
        return build(model, classes=self.num_classes, size=self.image_size, channels=self.channels)

    def new_classifier(self, feature_dim: int) -> nn.Module:
        """Return a linear classifier of pooled features."""
        return nn.Linear(feature_dim, self.num_classes)

    def loss(self, out: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy of every image, (B,)."""
        return F.cross_entropy(out, targets, reduction="none")

    def score(self, predictions: Predictions, targets: Tensor) -> dict[str, Score]:
        """Return every declared metric."""
        outputs = predictions["outputs"]
        return {metric.name: SCORES[metric.name](outputs, targets) for metric in self.metrics}

    def names_of(self, found: Sequence[str], where: Path) -> list[str]:
        """Return the names of the classes that take part, out of those that the data has."""
        return first_names(found, self.num_classes, self.data.name, where)


def held_out(part: Part, classes: Tensor, share: float, seed: int) -> Tensor:
    """Return which of the official training images belong to a part, (N,) bool."""
    held = stratified_holdout(classes, share, generator(seed, "split"))
    return held if part == "validation" else ~held


def check_classes(classes: Tensor, number: int, where: Path) -> None:
    """Refuse data with a class out of range.

    Raises
    ------
    DataError
        If there is one.
    """
    wrong = torch.nonzero((classes < 0) | (classes >= number)).flatten()
    if len(wrong):
        first = int(wrong[0])
        raise DataError(
            f"{where}: image {first} has class {int(classes[first])}, which must be in "
            f"0..{number - 1}."
        )
