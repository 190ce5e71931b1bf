"""What tasks share whose images have several labels each, found by a model of other images.

Targets are 1 for a label that the image has, 0 for one that it does not have, and -1 where the
data says neither, as of objects that are hard to see: those count as had in training, and not at
all in the scores. Mixed images have the mean of their sources' losses, which is the loss of the
mean of their targets.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixbench.contract import Backbone, Part, Predictions, Score, Task
from mixbench.declare import (
    MEAN_AVERAGE_PRECISION,
    MULTI_LABEL_FINE_TUNING,
    PRETRAINED_ON_IMAGENET,
    SMALL_NETS,
    Count,
    CountOrZero,
    Fraction,
    Synthetic,
    Weights,
)
from mixbench.errors import BadParameter
from mixbench.streams import generator
from mixbench.vision.average_precision import (
    Interpolation,
    curves,
    f1_scores,
    mean_average_precision,
    micro_average_precision,
)
from mixbench.vision.images.augment import WindowFlip, resize
from mixbench.vision.images.lists import first_names
from mixbench.vision.images.scenes import Layout, Look, looks, several_things, write_images
from mixbench.vision.images.splits import IMAGENET_NORMALIZATION, StreamedSplit, held_out_share
from mixbench.vision.models.build import build
from mixbench.vision.models.weights import start_from

SIZE = (72, 96)  # of generated images: height and width
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
    classes
        The first so many of the labels; images of none of them are left out. 0 takes all.
    side : pixels
        Of the squares to which images are resized, whatever their shapes.
    holdout
        The share of the training images that is held out for validation.
    weights
        What fine-tuning starts from: the same method's own model of ImageNet (``pretrained``, or
        ``synthetic`` of generated images), what others published, ``random`` weights or a file.
    mix_in
        Where the method mixes: in ``pretrain``-ing, in ``finetune``-ing or in ``both``.
    criterion
        ``bce``: the binary cross-entropy, a mean over the labels. ``asl``: the asymmetric loss of
        Ridnik et al., arXiv:2009.14119, a sum over them.

    Attributes
    ----------
    all_labels
        How many the data has.
    labels
        How many take part.
    """

    all_labels: ClassVar[int]

    synthetic = Synthetic(train=80, test=40, protocols=("quick",))
    needs = PRETRAINED_ON_IMAGENET
    by_protocol = {"quick": {"classes": 8, "side": 48}}
    metrics = MEAN_AVERAGE_PRECISION
    models = SMALL_NETS
    takes_timm = True
    protocols = MULTI_LABEL_FINE_TUNING

    def __init__(
        self,
        classes: CountOrZero = 0,
        side: Count = 448,
        holdout: Fraction = 0.1,
        weights: Weights = "pretrained",
        mix_in: Literal["pretrain", "finetune", "both"] = "pretrain",
        criterion: Literal["bce", "asl"] = "bce",
    ) -> None:
        if classes > self.all_labels:
            raise BadParameter(
                f"classes must be at most {self.all_labels}, the labels of {self.data.name} (got "
                f"{classes})."
            )
        self.labels = classes or self.all_labels
        self.image_size = (side, side)
        self.holdout = holdout
        self.weights = weights
        self.mix_in = mix_in
        self._criterion = CRITERIA[criterion]
        self._augment = WindowFlip(side, side)
        self._fit = partial(resize, size=self.image_size)

    def build(self, model: str) -> Backbone:
        """Return a backbone with one output for every label."""
        return build(model, classes=self.labels, size=self.image_size)

    def start(self, model: Backbone, trained: Mapping[str, Backbone]) -> None:
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

    def part_of(
        self, paths: Sequence[Path], targets: Tensor, part: Part, seed: int, *, empty: bool = True
    ) -> StreamedSplit:
        """Return a part of the official images, of the labels that take part.

        Parameters
        ----------
        paths, targets
            All official test images, or training images, with all labels, (N, all labels) int8.
        empty
            Whether images without any label are kept, where all labels take part.
        """
        whole = targets.shape[1] == self.labels
        targets = targets[:, : self.labels]
        kept = (targets != 0).any(1) | (empty and whole)
        if part != "test":
            kept = kept & self.side_of_holdout(part, len(kept), seed)
        chosen = [paths[i] for i in torch.nonzero(kept).flatten().tolist()]
        return StreamedSplit(
            *(chosen, targets[kept], None, IMAGENET_NORMALIZATION, self._augment), fit=self._fit
        )

    def scenes(self, amount: Synthetic, part: Literal["train", "test"]) -> "Scenes":
        """Return what generated images of a part show, to be written in the data's layout.

        The amounts are images for every label, of which each shows one to three; some show none.
        """
        number = ("train", "test").index(part)
        rng = generator(amount.seed, "synthetic", number)
        count = (amount.train, amount.test)[number] * self.labels
        layout = several_things(count, self.labels, rng)
        layout.looks[:: 4 * self.labels] = -1
        return Scenes(layout, looks(self.labels), rng)

    def side_of_holdout(self, part: Part, number: int, seed: int) -> Tensor:
        """Return which of the official training images belong to a part, (number,) bool."""
        held = held_out_share(number, self.holdout, generator(seed, "split"))
        return held if part == "validation" else ~held


class Scenes(NamedTuple):
    """Generated images with some things each, before they are painted.

    Attributes
    ----------
    rng
        The stream from which they are painted.
    """

    layout: Layout
    kinds: list[Look]
    rng: torch.Generator

    def write(self, paths: Sequence[Path]) -> Tensor:
        """Write the images; return the boxes of what can be seen of each thing, (N, n, 4)."""
        return write_images(paths, self.layout, self.kinds, SIZE, self.rng)

    def targets(self, boxes: Tensor) -> Tensor:
        """Return which labels each image has, (N, labels) int8, of things that can be seen."""
        found = torch.zeros(len(self.layout), len(self.kinds), dtype=torch.int8)
        seen = torch.nonzero((self.layout.looks >= 0) & (boxes[..., 2] > 0))
        found[seen[:, 0], self.layout.looks[seen[:, 0], seen[:, 1]]] = 1
        return found


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
