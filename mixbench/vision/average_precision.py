"""Average precision of many labels, from logits (N, K) and targets (N, K): 1, 0, or -1 for neither.

Pairs of an image and a label that are neither are left out of the label's ranking: objects that
VOC calls difficult. Equal logits share a rank. Logits are compared, not probabilities, of which
the largest are all 1.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from mixbench.contract import Score

Interpolation = Literal["none", "voc07", "voc10"]


class Curve(NamedTuple):
    """Precision and recall at every rank at which the logit changes, the highest logit first."""

    precision: Tensor
    recall: Tensor


def curve(logits: Tensor, targets: Tensor) -> Curve | None:
    """Return the curve of one label, (N,) each; None without a positive."""
    known = targets >= 0
    logits, positive = logits[known].double(), targets[known].double()
    number = positive.sum()
    if number == 0:
        return None
    logits, order = logits.sort(descending=True, stable=True)
    right = positive[order].cumsum(0)
    last = torch.ones_like(logits, dtype=torch.bool)
    last[:-1] = logits[1:] != logits[:-1]  # of those with an equal logit
    ranks = torch.arange(1, len(logits) + 1, dtype=torch.float64)
    return Curve((right / ranks)[last], (right / number)[last])


def average_precision(found: Curve, interpolation: Interpolation = "none") -> float:
    """Return the area under a curve, in [0, 1].

    Parameters
    ----------
    interpolation
        ``none``: the mean of the precisions at the positives. ``voc07``: the mean, over recalls of
        0, 0.1, ..., 1, of the largest precision at such a recall or a higher one, as VOC counted
        until 2009. ``voc10``: the area under that largest precision, as it counts since.
    """
    precision, recall = found
    highest = precision.flip(0).cummax(0).values.flip(0)
    if interpolation == "voc07":
        levels = torch.arange(11, dtype=torch.float64) / 10
        places = torch.searchsorted(recall, levels - 1e-12)
        reached = torch.cat([highest, highest.new_zeros(1)])[places]
        return float(reached.mean())
    gained = recall.diff(prepend=recall.new_zeros(1))
    return float((gained * (precision if interpolation == "none" else highest)).sum())


def curves(logits: Tensor, targets: Tensor) -> list[Curve | None]:
    """Return the curve of every label."""
    return [curve(logits[:, k], targets[:, k]) for k in range(logits.shape[1])]


def average_precisions(
    logits: Tensor, targets: Tensor, interpolation: Interpolation = "none"
) -> list[float | None]:
    """Return the average precision of every label, in [0, 1]; None for one without positives."""
    found = curves(logits, targets)
    return [None if c is None else average_precision(c, interpolation) for c in found]


def mean_average_precision(found: Sequence[Curve | None], interpolation: Interpolation) -> Score:
    """Return the mean of the average precisions over the labels that have a curve, in percent."""
    percents = [None if c is None else 100 * average_precision(c, interpolation) for c in found]
    there = [percent for percent in percents if percent is not None]
    return Score(sum(there) / len(there) if there else 0.0, by_class=percents)


def micro_average_precision(logits: Tensor, targets: Tensor) -> float:
    """Return the average precision of all pairs of an image and a label in one ranking."""
    found = curve(logits.flatten(), targets.flatten())
    return 0.0 if found is None else average_precision(found)


class F1(NamedTuple):
    """Harmonic means of precision and recall, in [0, 1].

    Attributes
    ----------
    overall
        Of all pairs of an image and a label.
    by_class
        Of the means over the labels.
    """

    overall: float
    by_class: float


def f1_scores(logits: Tensor, targets: Tensor) -> F1:
    """Return OF1 and CF1 of the labels with a probability of one half or more.

    A label that is never predicted has a precision of 0, as in
    megvii-research/ML-GCN@5517d6f, util.py:271-289; labels without positives are left out.
    """
    said, true = (logits >= 0) & (targets >= 0), targets == 1
    right = (said & true).sum(0).double()
    number_said, number_true = said.sum(0).double(), true.sum(0).double()
    there = number_true > 0
    precisions = (right / number_said.clamp_min(1))[there]
    recalls = (right / number_true.clamp_min(1))[there]
    overall = _harmonic(
        right.sum() / number_said.sum().clamp_min(1), right.sum() / number_true.sum()
    )
    return F1(overall, _harmonic(precisions.mean(), recalls.mean()))


def _harmonic(precision: Tensor, recall: Tensor) -> float:
    both = precision + recall
    return float(2 * precision * recall / both) if both > 0 else 0.0
