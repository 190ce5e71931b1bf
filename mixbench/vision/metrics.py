"""Metrics of single-label classification, from a few numbers about each prediction."""

from typing import NamedTuple, Self

import torch
from torch import Tensor

from mixbench.contract import Predictions, Score

NUM_BINS = 15  # of the calibration error
LEAST = torch.finfo(torch.half).min
LEVELS = 65535  # of a rounded confidence: a multiple of NUM_BINS, so that no bin loses an item


class ClassPredictions(NamedTuple):
    """What the metrics need to know about the predictions, which is less than the logits.

    Attributes
    ----------
    predicted : (N,) integer
        Class with the largest logit.
    among_five : (N,) bool
        Whether the true class is among those with the five largest logits; None if not kept.
    confidence : (N,) float
        Probability of the predicted class.
    log_likelihood : (N,) float
        Natural logarithm of the probability of the true class.
    """

    predicted: Tensor
    among_five: Tensor | None
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

    def rounded(self, num_classes: int, *, five: bool) -> Predictions:
        """Return them in 5 bytes for each item, or 8 with over 256 classes, and 1 for `five`.

        Confidences are rounded to the middle of one of 65,535 intervals, which stays in its bin of
        the calibration error, and log-likelihoods to 11 bits.
        """
        among_five = {"among_five": self.among_five} if five and self.among_five is not None else {}
        return {
            "predicted": self.predicted.to(torch.uint8 if num_classes <= 256 else torch.int32),
            "confidence": (self.confidence * LEVELS).ceil().to(torch.uint16),
            "log_likelihood": self.log_likelihood.clamp(min=LEAST).half(),
            **among_five,
        }

    @classmethod
    def of_rounded(cls, kept: Predictions) -> Self:
        """Return those that `rounded` returned, or that are float32."""
        confidence = kept["confidence"]
        if confidence.dtype == torch.uint16:
            confidence = (confidence.double() - 0.5) / LEVELS
        five = kept.get("among_five")
        return cls(kept["predicted"], five, confidence, kept["log_likelihood"])


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
    assert found.among_five is not None
    return mean_of(100.0 * found.among_five)


def cross_entropy(found: ClassPredictions, targets: Tensor) -> Score:  # noqa: ARG001  # as above
    """Return the mean negative log-likelihood of the classes, in nats."""
    return mean_of(-found.log_likelihood)


def calibration_error(found: ClassPredictions, targets: Tensor, num_bins: int = NUM_BINS) -> Score:
    """Return the expected calibration error of the predicted class, in percent.

    The confidences are divided into `num_bins` bins of equal width over (0, 1], closed on the
    right. The error is the mean absolute difference between the accuracy and the mean confidence
    of a bin, weighted by the number of items in it (Guo et al., arXiv:1706.04599, eq. 3).
    """
    return calibration_gap(found.confidence.double(), found.predicted == targets, num_bins)


def calibration_gap(confidence: Tensor, correct: Tensor, num_bins: int = NUM_BINS) -> Score:
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
