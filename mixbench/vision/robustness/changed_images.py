"""What evaluations on changed images of a classification task share."""

from collections.abc import Mapping

from mixbench.contract import Backbone, Evaluation, Split, Task
from mixbench.errors import UsageError
from mixbench.vision.images.splits import ImageSplit, Normalization
from mixbench.vision.models.weights import start_whole
from mixbench.vision.tasks.classification import Classification


class ChangedImages(Evaluation):
    """An evaluation of classifiers on images that were changed."""

    normalization: Normalization

    def inherit(self, base_task: Task) -> None:
        """Take over from the base task what this task does not declare itself.

        Raises
        ------
        UsageError
            If it is no classification of single labels.
        """
        super().inherit(base_task)
        if not isinstance(base_task, Classification):
            raise UsageError(
                f"{type(self).__name__} evaluates classifiers; {self.evaluates} has none."
            )
        self.normalization = base_task.normalization

    def start(self, model: Backbone, trained: Mapping[str, Backbone]) -> None:  # noqa: ARG002  # nothing else is trained
        """Give a model the weights in a file or of timm's, its classifier's too."""
        start_whole(model, self.weights, f"{self.num_classes} classes of {self.evaluates}")


def stored(split: Split) -> ImageSplit:
    """Return a part whose images are kept as bytes.

    Raises
    ------
    UsageError
        If it is none.
    """
    if not isinstance(split, ImageSplit):
        raise UsageError(f"{type(split).__name__} keeps no images that could be changed.")
    return split
