"""Average precision and F1 of many labels, from logits (N, K) and targets (N, K): 1, 0 or -1.

A target of -1 means that the image counts neither as positive nor as negative for the label, as the
objects that VOC marks difficult; it is left out. Logits are ranked, not probabilities, of which the
largest all round to 1.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import f1_score, precision_recall_curve, precision_recall_fscore_support
from torch import Tensor

from mixbench.contract import Score

Floats = NDArray[np.float64]
Interpolation = Literal["none", "voc07", "voc10"]
LARGEST = float(np.finfo(np.float64).max)


class Curve(NamedTuple):
    """Precision and recall at falling thresholds, (M,) each."""

    precision: Floats
    recall: Floats


def curve(logits: Tensor, targets: Tensor) -> Curve | None:
    """Return the precision-recall curve of one label, (N,) each; None if it has no positives."""
    known = targets >= 0
    positive = targets[known].numpy() == 1
    if not positive.any():
        return None
    # scikit-learn refuses infinities, which a model's log-probabilities may contain.
    finite = logits[known].double().clamp(-LARGEST, LARGEST)
    precision, recall, _ = precision_recall_curve(positive, finite.numpy())
    return Curve(precision[-2::-1], recall[-2::-1])  # scikit-learn ends with a point at recall 0


def average_precision(found: Curve, interpolation: Interpolation = "none") -> float:
    """Return the area under a precision-recall curve, in [0, 1].

    Parameters
    ----------
    interpolation
        ``none``: the mean precision at the positives, as scikit-learn's average_precision_score.
        ``voc07``: the mean, over recalls of 0, 0.1, ..., 1, of the largest precision at that
        recall or a higher one, as VOC 2007 does. ``voc10``: the area under that largest precision,
        as VOC does since 2010.
    """
    precision, recall = found
    highest = np.maximum.accumulate(precision[::-1])[::-1]
    if interpolation == "voc07":
        places = np.searchsorted(recall, np.arange(11) / 10 - 1e-12)
        return float(np.append(highest, 0.0)[places].mean())
    heights = precision if interpolation == "none" else highest
    return float(np.diff(recall, prepend=0.0) @ heights)


def curves(logits: Tensor, targets: Tensor) -> list[Curve | None]:
    """Return the precision-recall curve of every label."""
    return [curve(logits[:, k], targets[:, k]) for k in range(logits.shape[1])]


def mean_average_precision(found: Sequence[Curve | None], interpolation: Interpolation) -> Score:
    """Return the mean average precision over the labels that have positives, in percent."""
    percents = [None if c is None else 100 * average_precision(c, interpolation) for c in found]
    there = [percent for percent in percents if percent is not None]
    return Score(sum(there) / len(there) if there else 0.0, by_class=percents)


def micro_average_precision(logits: Tensor, targets: Tensor) -> float:
    """Return the average precision of all pairs of an image and a label, ranked together."""
    found = curve(logits.flatten(), targets.flatten())
    return 0.0 if found is None else average_precision(found)


class F1(NamedTuple):
    """F1 in [0, 1]: the harmonic mean of precision and recall.

    Attributes
    ----------
    overall
        OF1: over all pairs of an image and a label.
    by_class
        CF1: of the precision and the recall averaged over the labels.
    """

    overall: float
    by_class: float


def f1_scores(logits: Tensor, targets: Tensor) -> F1:
    """Return OF1 and CF1 where a label is predicted if its probability is at least one half.

    A label that is never predicted has a precision of 0, as in
    megvii-research/ML-GCN@5517d6f, util.py:271-289; labels without positives are left out.
    """
    predicted, positive = ((logits >= 0) & (targets >= 0)).numpy(), (targets == 1).numpy()
    if not positive.any():
        return F1(0.0, 0.0)
    overall = f1_score(positive, predicted, average="micro", zero_division=0)
    labels = np.flatnonzero(positive.any(0))
    precision, recall, *_ = precision_recall_fscore_support(
        positive, predicted, labels=labels, average="macro", zero_division=0
    )
    both = precision + recall
    return F1(float(overall), float(2 * precision * recall / both) if both else 0.0)
