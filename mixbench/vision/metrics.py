"""Metrics of single-label classification, from a few numbers about each prediction."""

from typing import NamedTuple, Self

import torch
from torch import Tensor

from mixbench.contract import Score


class ClassPredictions(NamedTuple):
    """What the metrics need to know about the predictions, which is less than the logits.

    Attributes
    ----------
    predicted : (N,) integer
        Class with the largest logit.
    among_five : (N,) bool
        Whether the true class is among those with the five largest logits.
    confidence : (N,) float
        Probability of the predicted class.
    log_likelihood : (N,) float
        Natural logarithm of the probability of the true class.
    """

    predicted: Tensor
    among_five: Tensor
    confidence: Tensor
    log_likelihood: Tensor

    @classmethod
    def of(cls, logits: Tensor, targets: Tensor) -> Self:
        """Return those of logits, (N, K), for true classes, (N,) int64."""
        exact, true = logits.double(), targets[:, None]
        confidence, predicted = exact.softmax(1).max(1)
        five = logits.topk(min(5, logits.shape[1])).indices
        log_likelihood = exact.log_softmax(1).gather(1, true)[:, 0]
        return cls(predicted, (five == true).any(1), confidence, log_likelihood)


def mean_of(values: Tensor) -> Score:
    """Return the mean over the items, with its standard error and the value of each item."""
    values = values.double()
    stderr = float(values.std() / len(values) ** 0.5) if len(values) > 1 else None
    return Score(float(values.mean()), stderr, items=values)


def top1(found: ClassPredictions, targets: Tensor) -> Score:
    """Return the percentage of items whose class has the largest logit."""
    return mean_of(100.0 * (found.predicted == targets))


def top5(found: ClassPredictions, targets: Tensor) -> Score:  # noqa: ARG001  # one form for all
    """Return the percentage of items whose class is among the five largest logits."""
    return mean_of(100.0 * found.among_five)


def cross_entropy(found: ClassPredictions, targets: Tensor) -> Score:  # noqa: ARG001  # as above
    """Return the mean negative log-likelihood of the classes, in nats."""
    return mean_of(-found.log_likelihood)


def calibration_error(found: ClassPredictions, targets: Tensor, num_bins: int = 15) -> Score:
    """Return the expected calibration error of the predicted class, in percent.

    The confidences are divided into `num_bins` bins of equal width over (0, 1], closed on the
    right. The error is the mean absolute difference between the accuracy and the mean confidence
    of a bin, weighted by the number of items in it (Guo et al., arXiv:1706.04599, eq. 3).
    """
    return calibration_gap(found.confidence.double(), found.predicted == targets, num_bins)


def calibration_gap(confidence: Tensor, correct: Tensor, num_bins: int = 15) -> Score:
    """Return the expected calibration error in percent, given confidences and correctness.

    Parameters
    ----------
    confidence : (N,) float64
        Probability of the predicted class of each item.
    correct : (N,) bool
        Whether the prediction of each item is correct.
    num_bins
        Number of bins of equal width over (0, 1].
    """
    edges = torch.linspace(0, 1, num_bins + 1, dtype=torch.float64)[1:-1]
    bins = torch.bucketize(confidence, edges)
    gaps = torch.zeros(num_bins, dtype=torch.float64)
    gaps = gaps.index_add(0, bins, correct.double() - confidence)
    return Score(100.0 * float(gaps.abs().sum()) / len(correct))
