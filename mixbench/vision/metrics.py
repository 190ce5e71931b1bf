"""Metrics of single-label classification, from logits (N, K) and class indices (N,)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from mixbench.contract import Score


def mean_of(values: Tensor) -> Score:
    """Return the mean over the items, with its standard error and the value of each item."""
    values = values.double()
    stderr = float(values.std() / len(values) ** 0.5) if len(values) > 1 else None
    return Score(float(values.mean()), stderr, items=values)


def top1(logits: Tensor, targets: Tensor) -> Score:
    """Return the percentage of items whose class has the largest logit."""
    return mean_of(100.0 * (logits.argmax(1) == targets))


def top5(logits: Tensor, targets: Tensor) -> Score:
    """Return the percentage of items whose class is among the five largest logits."""
    among = logits.topk(min(5, logits.shape[1])).indices == targets[:, None]
    return mean_of(100.0 * among.any(1))


def cross_entropy(logits: Tensor, targets: Tensor) -> Score:
    """Return the mean negative log-likelihood of the classes, in nats."""
    return mean_of(F.cross_entropy(logits.double(), targets, reduction="none"))


def calibration_error(logits: Tensor, targets: Tensor, num_bins: int = 15) -> Score:
    """Return the expected calibration error of the predicted class, in percent.

    The confidences are divided into `num_bins` bins of equal width over (0, 1], closed on the
    right. The error is the mean absolute difference between the accuracy and the mean confidence
    of a bin, weighted by the number of items in it (Guo et al., arXiv:1706.04599, eq. 3).
    """
    confidence, predicted = logits.double().softmax(1).max(1)
    return calibration_gap(confidence, predicted == targets, num_bins)


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
