"""Base class of evaluations on changed images of a classification task."""

from collections.abc import Mapping

from mixbench.contract import Backbone, Evaluation, Normalization, Split, Task
from mixbench.errors import UsageError
from mixbench.vision.images.splits import ImageSplit
from mixbench.vision.models.weights import start_whole
from mixbench.vision.tasks.classification import Classification


class ChangedImages(Evaluation):
    """Evaluation of classifiers on changed images of their task."""

    normalization: Normalization

    def inherit(self, base_task: Task) -> None:
        """Copy from the base task the settings that this task does not declare itself.

        Raises
        ------
        UsageError
            If the base task is not a classification task with single labels.
        """
        super().inherit(base_task)
        if not isinstance(base_task, Classification):
            raise UsageError(
                f"{type(self).__name__} evaluates classifiers, but {self.evaluates} is not a "
                "classification task with single labels: set `evaluates` to one that is."
            )
        self.normalization = base_task.normalization

    def start(self, model: Backbone, trained: Mapping[str, Backbone]) -> None:  # noqa: ARG002  # nothing else is trained
        """Load weights from a file or from timm into a model, including its classifier."""
        classes = f"{self.num_classes} classes of {self.evaluates}"
        start_whole(model, self.weights, classes, self.normalization)


def stored(split: Split) -> ImageSplit:
    """Return a split after a check that it stores its images as bytes.

    Raises
    ------
    UsageError
        If it does not.
    """
    if not isinstance(split, ImageSplit):
        raise UsageError(
            f"{type(split).__name__} does not store images as bytes, so they cannot be changed: "
            "return an ImageSplit from the task's `load`."
        )
    return split
