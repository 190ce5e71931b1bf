"""Base class of multi-label classification tasks, which fine-tune a pre-trained model.

A target is 1 for a label that the image has, 0 for a label that it does not have, and -1 if the
data is undecided, for example for objects marked as difficult. In training, -1 counts as 1; the
metrics ignore it. The loss of a mixed image is the weighted mean of its sources' losses, which
equals the loss of the weighted mean of their targets.
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
        Number of labels to use, from the first one; images without any of them are left out. 0
        uses all labels.
    side : pixels
        Height and width to which images are resized, regardless of their aspect ratio.
    holdout
        Fraction of the training images that is held out for validation.
    weights
        Initial weights of fine-tuning: ``pretrained`` (the model that the same method trains on
        ImageNet), ``synthetic`` (the same on generated images), ``timm`` or ``timm:TAG`` (weights
        that timm publishes), ``random`` or a file.
    mix_in
        Stage in which the method mixes: ``pretrain`` (pre-training), ``finetune`` (fine-tuning) or
        ``both``.
    criterion
        Loss function: ``bce`` (binary cross-entropy, averaged over the labels) or ``asl``
        (asymmetric loss of Ridnik et al., arXiv:2009.14119, summed over the labels).

    Attributes
    ----------
    all_labels
        Number of labels of the data.
    labels
        Number of labels that the task uses.
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
                f"classes must be at most {self.all_labels}, the number of labels of "
                f"{self.data.name} (got {classes})."
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
        """Return a backbone with one output per label."""
        return build(model, classes=self.labels, size=self.image_size)

    def start(self, model: Backbone, trained: Mapping[str, Backbone]) -> None:
        """Load the initial weights that the parameter `weights` names."""
        start_from(model, self.weights, trained)

    def new_classifier(self, feature_dim: int) -> nn.Module:
        """Return a linear classifier for pooled features."""
        return nn.Linear(feature_dim, self.labels)

    def loss(self, out: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of every image, (B,)."""
        return self._criterion(out, (targets != 0).to(out.dtype))

    def score(self, predictions: Predictions, targets: Tensor) -> dict[str, Score]:
        """Return the declared metrics; mean average precision covers the labels with images."""
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
        """Return the names of the task's labels, which are the first of the data's labels."""
        return first_names(found, self.labels, self.data.name, where)

    def part_of(
        self, paths: Sequence[Path], targets: Tensor, part: Part, seed: int, *, empty: bool = True
    ) -> StreamedSplit:
        """Return a split of the official images, restricted to the task's labels.

        Parameters
        ----------
        paths
            Paths of all N official test images, or of all N official training images.
        targets : (N, all labels) int8
            Targets of these images for all labels of the data.
        part
            Split to return.
        seed
            Seed of the draw of the validation split.
        empty
            Whether to keep images without any label if the task uses all labels.
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
        """Return the scenes of a split's generated images, which are not written yet.

        `amount` gives the number of images per label. Each image shows objects of one to three
        labels, except that some images show none.
        """
        number = ("train", "test").index(part)
        rng = generator(amount.seed, "synthetic", number)
        count = (amount.train, amount.test)[number] * self.labels
        layout = several_things(count, self.labels, rng)
        layout.looks[:: 4 * self.labels] = -1
        return Scenes(layout, looks(self.labels), rng)

    def side_of_holdout(self, part: Part, number: int, seed: int) -> Tensor:
        """Return a mask of the official training images in a split, (number,) bool."""
        held = held_out_share(number, self.holdout, generator(seed, "split"))
        return held if part == "validation" else ~held


class Scenes(NamedTuple):
    """Generated images with several objects each, before they are painted.

    Attributes
    ----------
    layout
        Placement of the objects in the N images.
    kinds
        List of classes that ``layout.looks`` indexes, one per label.
    rng
        Random generator for painting the images.
    """

    layout: Layout
    kinds: list[Look]
    rng: torch.Generator

    def write(self, paths: Sequence[Path]) -> Tensor:
        """Write the images; return the box of each object's visible part, (N, n, 4)."""
        return write_images(paths, self.layout, self.kinds, SIZE, self.rng)

    def targets(self, boxes: Tensor) -> Tensor:
        """Return the targets of each image, (N, labels) int8, which are 1 for visible objects."""
        found = torch.zeros(len(self.layout), len(self.kinds), dtype=torch.int8)
        seen = torch.nonzero((self.layout.looks >= 0) & (boxes[..., 2] > 0))
        found[seen[:, 0], self.layout.looks[seen[:, 0], seen[:, 1]]] = 1
        return found


def binary_cross_entropy(out: Tensor, targets: Tensor) -> Tensor:
    """Return the binary cross-entropy of each image, averaged over the labels, (B,)."""
    return F.binary_cross_entropy_with_logits(out, targets, reduction="none").mean(1)


def asymmetric_loss(out: Tensor, targets: Tensor, focus: float = 4, margin: float = 0.05) -> Tensor:
    """Return the asymmetric loss of each image, summed over the labels, (B,).

    It reduces the weight of negative labels that the model predicts with confidence. It follows
    Alibaba-MIIL/ASL@8c9e0bd, src/loss_functions/losses.py:5-50, with its settings for multi-label
    data: positive labels are not reweighted, and no gradient flows through the weights.

    Parameters
    ----------
    out : (B, K)
        Logits of the labels.
    targets : (B, K)
        Targets in [0, 1].
    focus
        Focusing exponent of negative labels.
    margin
        Probability that is subtracted from the predicted probability of negative labels.
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
