"""What tasks share whose images have several labels each, found by a model of other images.

Targets are 1 for a label that the image has, 0 for one that it does not have, and -1 where the
data says neither, as of objects that are hard to see: those count as had in training, and not at
all in the scores. Mixed images have the mean of their sources' losses, which is the loss of the
mean of their targets.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixbench.average_precision import (
    Interpolation,
    curves,
    f1_scores,
    mean_average_precision,
    micro_average_precision,
)
from mixbench.contract import Part, Predictions, Score, Task
from mixbench.images.augment import WindowFlip, resize
from mixbench.images.lists import first_names
from mixbench.images.splits import IMAGENET_PIXELS, StreamedSplit, held_out_share
from mixbench.models.build import build
from mixbench.models.weights import start_from
from mixbench.streams import generator

EMPTY_LABELS = "labels_without_images"
INTERPOLATIONS: Mapping[str, Interpolation] = {
    "map": "none",
    "map_voc07": "voc07",
    "map_voc10": "voc10",
}


class MultiLabel(Task):
    """A task whose images have several labels each.

    Parameters
    ----------
    labels
        How many.
    side : pixels
        Of the squares to which images are resized, whatever their shapes.
    holdout
        The share of the training images that is held out for validation.
    weights
        What fine-tuning starts from.
    mix_in
        Where the method mixes: in ``pretrain``-ing, in ``finetune``-ing or in ``both``.
    criterion
        ``bce``: the binary cross-entropy, a mean over the labels. ``asl``: the asymmetric loss of
        Ridnik et al., arXiv:2009.14119, a sum over them.
    """

    def __init__(
        self,
        labels: int,
        side: int,
        holdout: float,
        weights: str,
        mix_in: str,
        criterion: Literal["bce", "asl"],
    ) -> None:
        self.labels = labels
        self.image_size = (side, side)
        self.holdout = holdout
        self.weights = weights
        self.mix_in = mix_in
        self._criterion = CRITERIA[criterion]
        self._augment = WindowFlip(side, side)
        self._fit = partial(resize, size=self.image_size)

    def build(self, model: str) -> nn.Module:
        """Return a backbone with one output for every label."""
        return build(model, classes=self.labels, size=self.image_size)

    def start(self, model: nn.Module, trained: Mapping[str, nn.Module]) -> None:
        """Start from the weights that `weights` names."""
        start_from(model, self.weights, trained)

    def new_classifier(self, feature_dim: int) -> nn.Module:
        """Return a linear classifier of pooled features."""
        return nn.Linear(feature_dim, self.labels)

    def loss(self, out: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of every image, (B,)."""
        return self._criterion(out, (targets != 0).to(out.dtype))

    def score(self, predictions: Predictions, targets: Tensor) -> dict[str, Score]:
        """Return the mean average precision over the labels that have images, and its company."""
        logits = predictions["outputs"]
        found = curves(logits, targets)
        scores = {
            name: mean_average_precision(found, kind) for name, kind in INTERPOLATIONS.items()
        }
        scores["micro_ap"] = Score(100 * micro_average_precision(logits, targets))
        f1 = f1_scores(logits, targets)
        scores |= {"of1": Score(100 * f1.overall), "cf1": Score(100 * f1.by_class)}
        scores[EMPTY_LABELS] = Score(float((targets == 1).any(0).logical_not().sum()))
        return {metric.name: scores[metric.name] for metric in self.metrics}

    def names_of(self, found: Sequence[str], where: Path) -> list[str]:
        """Return the names of the labels that take part, out of those that the data has."""
        return first_names(found, self.labels, self.data.name, where)

    def split(self, paths: list[Path], targets: Tensor) -> StreamedSplit:
        """Return a part of these images, (N,), with their targets, (N, labels) int8."""
        return StreamedSplit(*(paths, targets, None, IMAGENET_PIXELS, self._augment), fit=self._fit)

    def side_of_holdout(self, part: Part, number: int, seed: int) -> Tensor:
        """Return which of the official training images belong to a part, (number,) bool."""
        held = held_out_share(number, self.holdout, generator(seed, "split"))
        return held if part == "validation" else ~held


def binary_cross_entropy(out: Tensor, targets: Tensor) -> Tensor:
    """Return the mean over the labels, (B,)."""
    return F.binary_cross_entropy_with_logits(out, targets, reduction="none").mean(1)


def asymmetric_loss(out: Tensor, targets: Tensor, focus: float = 4, margin: float = 0.05) -> Tensor:
    """Return the sum over the labels, (B,), in which labels that are surely absent hardly count.

    As Alibaba-MIIL/ASL@8c9e0bd, src/loss_functions/losses.py:5-50, with its weights for
    multi-label data: positives are not focused on, and the weights have no gradient.
    """
    present = torch.sigmoid(out)
    absent = (1 - present + margin).clamp(max=1)
    weight = (1 - absent.detach()) ** focus
    terms = targets * present.clamp(min=1e-8).log()
    terms = terms + (1 - targets) * weight * absent.clamp(min=1e-8).log()
    return -terms.sum(1)


CRITERIA: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "bce": binary_cross_entropy,
    "asl": asymmetric_loss,
}
