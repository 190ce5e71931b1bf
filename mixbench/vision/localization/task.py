"""What localization tasks share: class activation maps as predictions, and their scores."""

from collections.abc import Callable

from torch import Tensor

from mixbench.contract import Backbone, Output, Predictions, Score, Task, class_maps
from mixbench.vision.localization.scoring import localization_scores
from mixbench.vision.metrics import mean_of


class Localization(Task):
    """A task that scores where a classifier sees the class.

    Targets of validation and test are the classes and the true boxes in images of 224x224 pixels,
    (N, 1 + 4 n) int64.
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
        classes, truths = targets[:, 0], targets[:, 1:].unflatten(1, (-1, 4))
        right = predictions["outputs"].argmax(1) == classes
        scores = localization_scores(predictions["maps"], truths.numpy(), right)
        scores["top1"] = mean_of(100.0 * right)
        return {metric.name: scores[metric.name] for metric in self.metrics}

    def compact(self, predictions: Predictions, targets: Tensor) -> Predictions:  # noqa: ARG002
        """Return nothing: the scores need the maps."""
        return {}


def classes_of(targets: Tensor) -> Tensor:
    """Return the classes of targets with or without boxes, (B,)."""
    return targets if targets.dim() == 1 else targets[:, 0]
