"""What tasks share whose test images are published corrupted, in fifteen ways and five strengths.

A part's targets are (N, 3): class, corruption and severity, the latter two counted from 0.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from mixbench.contract import Backbone, Output, Predictions, Score
from mixbench.declare import CORRUPTED, CORRUPTIONS, Synthetic, Weights
from mixbench.vision.metrics import calibration_gap, mean_of
from mixbench.vision.robustness.changed_images import ChangedImages, stored
from mixbench.vision.robustness.corruptions import corruption_errors, error_rates


class Corrupted(ChangedImages):
    """A task that scores its base task's models on corrupted test images.

    Parameters
    ----------
    weights
        Which model is scored: what training with the same method and seed ended with
        (``pretrained``), what timm publishes, or that in a file.

    Attributes
    ----------
    of_alexnet
        Whether errors are divided by AlexNet's, which are known for ImageNet-C alone.
    """

    metrics = CORRUPTED
    of_alexnet: ClassVar[bool] = False

    def __init__(self, weights: Weights = "pretrained") -> None:
        super().__init__(weights)

    def class_names(self, folder: Path) -> Sequence[str]:  # noqa: ARG002  # they are no data
        """Return the corruptions: errors are told by them."""
        return CORRUPTIONS

    def predict(
        self,
        model: Backbone,
        read: Callable[[Output], Tensor],
        images: Tensor,
        targets: Tensor,
    ) -> dict[str, Tensor]:
        """Return what is scored of a batch; logits of millions of images would fill a disk.

        Returns
        -------
        predictions
            The classes found, ``corrupted``, (B,) int32; their probabilities, ``confidence``, (B,);
            and the ``cross_entropy`` of the true ones, (B,).
        """
        logits = read(model(images)).double()
        confidence, found = logits.softmax(1).max(1)
        return {
            "corrupted": found.to(torch.int32),
            "confidence": confidence,
            "cross_entropy": F.cross_entropy(logits, targets[:, 0], reduction="none"),
        }

    def score(self, predictions: Predictions, targets: Tensor) -> dict[str, Score]:
        """Return mCE, by corruption as well, and what classification is scored by, over all."""
        right = predictions["corrupted"] == targets[:, 0]
        errors = corruption_errors(error_rates(~right, targets[:, 1:]), of_alexnet=self.of_alexnet)
        # Each image is there 75 times: their errors are not independent.
        means = {
            "top1": mean_of(100.0 * right).value,
            "cross_entropy": mean_of(predictions["cross_entropy"]).value,
        }
        return {
            "mce": Score(float(errors.mean()), by_class=errors.tolist()),
            **{name: Score(value) for name, value in means.items()},
            "calibration_error": calibration_gap(predictions["confidence"].double(), right),
        }

    def clean(self, folder: Path, amount: Synthetic) -> tuple[Tensor, Tensor]:
        """Return generated test images of the base task, (N, 3, H, W) uint8, and their classes.

        Parameters
        ----------
        folder
            With room for the base task's files, which are removed.
        """
        with TemporaryDirectory(dir=folder) as place:
            self.base_task.synthesize(Path(place), replace(amount, train=1))
            split = stored(self.base_task.load("test", Path(place), 0))
            return split.fetch(torch.arange(len(split)), None), split.targets
