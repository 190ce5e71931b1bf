"""Base class of tasks with test images under several corruptions at 5 severities.

The targets of a split are (N, 3): class, corruption and severity. Corruption and severity are
counted from 0.
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
    """Evaluation of the base task's models on corrupted test images.

    Parameters
    ----------
    weights
        Weights of the evaluated model: ``pretrained`` (the model trained with the same method and
        seed), ``timm`` or ``timm:TAG`` (published by timm), or the path of a weight file.

    Attributes
    ----------
    of_alexnet
        Whether errors are divided by AlexNet's errors, which are known only for ImageNet-C.
    corruptions
        Names of the corruptions.
    """

    metrics = CORRUPTED
    corruptions: ClassVar[Sequence[str]] = CORRUPTIONS
    of_alexnet: ClassVar[bool] = False

    def __init__(self, weights: Weights = "pretrained") -> None:
        super().__init__(weights)

    def class_names(self, folder: Path) -> Sequence[str]:  # noqa: ARG002  # constant
        """Return the names of the corruptions, because errors are reported for each of them."""
        return self.corruptions

    def predict(
        self,
        model: Backbone,
        read: Callable[[Output], Tensor],
        images: Tensor,
        targets: Tensor,
    ) -> dict[str, Tensor]:
        """Return the predicted classes of a batch with their probabilities and losses.

        The logits are not returned: those of millions of images would fill a disk.

        Returns
        -------
        predictions
            ``corrupted``, (B,) int32: the predicted classes; ``confidence``, (B,): the
            probabilities of the predicted classes; ``cross_entropy``, (B,): the cross-entropy
            with the true classes.
        """
        logits = read(model(images)).double()
        confidence, found = logits.softmax(1).max(1)
        return {
            "corrupted": found.to(torch.int32),
            "confidence": confidence,
            "cross_entropy": F.cross_entropy(logits, targets[:, 0], reduction="none"),
        }

    def score(self, predictions: Predictions, targets: Tensor) -> dict[str, Score]:
        """Return the error, overall and per corruption, and the scores over all images."""
        right = predictions["corrupted"] == targets[:, 0]
        rates = error_rates(~right, targets[:, 1:], len(self.corruptions))
        errors = corruption_errors(rates, of_alexnet=self.of_alexnet)
        # Each image occurs under all of them, so the errors are not independent: no items.
        means = {
            "top1": mean_of(100.0 * right).value,
            "cross_entropy": mean_of(predictions["cross_entropy"]).value,
        }
        return {
            self.metrics[0].name: Score(float(errors.mean()), by_class=errors.tolist()),
            **{name: Score(value) for name, value in means.items()},
            "calibration_error": calibration_gap(predictions["confidence"].double(), right),
        }

    def clean(self, folder: Path, amount: Synthetic) -> tuple[Tensor, Tensor]:
        """Return synthetic test images of the base task, (N, 3, H, W) uint8, and their classes.

        Parameters
        ----------
        folder
            Folder in which the base task's files are written temporarily.
        amount
            Number of synthetic images and their seed.
        """
        with TemporaryDirectory(dir=folder) as place:
            self.base_task.synthesize(Path(place), replace(amount, train=1))
            split = stored(self.base_task.load("test", Path(place), 0))
            return split.fetch(torch.arange(len(split)), None), split.targets
