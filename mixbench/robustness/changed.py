"""What evaluations on changed images of a classification task share."""

from mixbench.classification import Classification
from mixbench.contract import Evaluation, Split, Task
from mixbench.errors import UsageError
from mixbench.images.splits import ImageSplit, Pixels


class ChangedImages(Evaluation):
    """An evaluation of classifiers on images that were changed."""

    pixels: Pixels

    def about(self, subject: Task) -> None:
        """Take the task whose models are evaluated.

        Raises
        ------
        UsageError
            If it is no classification of single labels.
        """
        super().about(subject)
        if not isinstance(subject, Classification):
            raise UsageError(
                f"{type(self).__name__} evaluates classifiers; {self.evaluates} has none."
            )
        self.pixels = subject.pixels


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
