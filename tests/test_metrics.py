"""Metrics against other derivations of the same numbers."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss
from torchmetrics.functional.classification import multiclass_accuracy

from mixbench.contract import Score
from mixbench.train.evaluation import at_points
from mixbench.vision.metrics import (
    ClassPredictions,
    calibration_error,
    cross_entropy,
    top1,
    top5,
)


@pytest.fixture
def answers(rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    targets = torch.randint(7, (500,), generator=rng)
    logits = 2 * torch.randn(500, 7, generator=rng)
    logits[torch.arange(500), targets] += 1
    return logits, targets


@pytest.mark.parametrize(("metric", "k"), [(top1, 1), (top5, 5)])
def test_accuracies_are_torchmetrics(
    answers: tuple[torch.Tensor, torch.Tensor],
    metric: Callable[[ClassPredictions, torch.Tensor], Score],
    k: int,
) -> None:
    logits, targets = answers

    theirs = multiclass_accuracy(logits, targets, num_classes=7, top_k=k, average="micro")

    assert metric(ClassPredictions.of(logits, targets), targets).value == pytest.approx(
        100 * float(theirs), abs=1e-4
    )


def test_top1_is_scikit_learns(answers: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, targets = answers

    value, stderr, *_ = top1(ClassPredictions.of(logits, targets), targets)

    accuracy = accuracy_score(targets, logits.argmax(1))
    assert value == pytest.approx(100 * accuracy)
    assert stderr == pytest.approx(100 * (accuracy * (1 - accuracy) / 499) ** 0.5)


def test_cross_entropy_is_scikit_learns(answers: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, targets = answers

    expected = log_loss(targets, logits.double().softmax(1).numpy(), labels=range(7))
    found = ClassPredictions.of(logits, targets)
    assert cross_entropy(found, targets).value == pytest.approx(expected)


def test_calibration_error_is_the_sum_over_bins(
    answers: tuple[torch.Tensor, torch.Tensor],
) -> None:
    logits, targets = answers
    probabilities = logits.double().softmax(1).numpy()
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == targets.numpy()
    expected = 0.0
    for low, high in zip(np.arange(15) / 15, np.arange(1, 16) / 15, strict=True):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            gap = abs(correct[inside].mean() - confidence[inside].mean())
            expected += inside.mean() * gap

    found = ClassPredictions.of(logits, targets)
    assert calibration_error(found, targets).value == pytest.approx(100 * expected)


def test_a_perfect_forecast_has_no_calibration_error() -> None:
    logits = torch.full((4, 3), -1e4)
    logits[torch.arange(4), torch.tensor([0, 1, 2, 0])] = 1e4

    found = ClassPredictions.of(logits, torch.tensor([0, 1, 2, 0]))
    assert calibration_error(found, torch.tensor([0, 1, 2, 0])).value == pytest.approx(0)


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_rounded_predictions_have_the_same_metrics(
    answers: tuple[torch.Tensor, torch.Tensor], scale: float
) -> None:
    logits, targets = answers
    exact = ClassPredictions.of(scale * logits, targets)

    kept = exact.rounded(7, five=True)
    found = ClassPredictions.of_rounded(kept)

    assert sum(tensor.element_size() for tensor in kept.values()) == 6
    for metric in (top1, top5):
        assert metric(found, targets).value == metric(exact, targets).value
    for metric in (cross_entropy, calibration_error):
        assert metric(found, targets).value == pytest.approx(
            metric(exact, targets).value, rel=1e-3, abs=1e-3
        )


def test_rounded_confidences_stay_in_their_bins() -> None:
    edges = torch.arange(1, 16, dtype=torch.float64) / 15
    confidence = torch.cat([edges, edges - 1e-9, edges[:-1] + 1e-9])
    exact = ClassPredictions(torch.zeros(44), None, confidence, confidence.log())

    found = ClassPredictions.of_rounded(exact.rounded(2, five=False)).confidence

    assert torch.bucketize(found, edges).equal(torch.bucketize(confidence, edges))
    torch.testing.assert_close(found, confidence, rtol=0, atol=0.5 / 65535 + 1e-8)


def test_points_are_taken_where_they_say() -> None:
    scores = {e: {"top1": Score(v, 0.1)} for e, v in {3: 50.0, 8: 60.0, 9: 80.0, 10: 70.0}.items()}

    points = at_points(scores, best=3, tail=[8, 9, 10])

    assert points["last"]["top1"].value == 70
    assert points["best_validation"]["top1"].value == 50
    assert points["median_tail"]["top1"] == Score(70.0, None)
