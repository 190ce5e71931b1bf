"""Average precision against other implementations, on logits with and without ties."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score
from torchmetrics.functional.classification import multilabel_average_precision

from mixbench.vision.average_precision import (
    Interpolation,
    average_precision,
    curves,
    f1_scores,
    micro_average_precision,
)

Answers = tuple[torch.Tensor, torch.Tensor]


def average_precisions(
    logits: torch.Tensor, targets: torch.Tensor, interpolation: Interpolation = "none"
) -> list[float | None]:
    found = curves(logits, targets)
    return [None if c is None else average_precision(c, interpolation) for c in found]


@pytest.fixture(params=[0, 1], ids=["distinct", "tied"])
def answers(request: pytest.FixtureRequest, rng: torch.Generator) -> Answers:
    targets = (torch.rand(300, 7, generator=rng) < 0.2).long()
    logits = torch.randn(300, 7, generator=rng) + targets
    return (logits * 4).round() / 4 if request.param else logits, targets


def test_it_is_scikit_learns(answers: Answers) -> None:
    logits, targets = answers

    found = average_precisions(logits, targets)

    theirs = average_precision_score(targets.numpy(), logits.numpy(), average=None)
    np.testing.assert_allclose(np.array(found, float), theirs, atol=1e-12)
    micro = average_precision_score(targets.numpy(), logits.numpy(), average="micro")
    assert micro_average_precision(logits, targets) == pytest.approx(micro, abs=1e-12)


def test_pairs_that_are_neither_are_left_out_as_torchmetrics_does(rng: torch.Generator) -> None:
    targets = torch.randint(-1, 2, (200, 5), generator=rng)
    logits = 3 * torch.randn(200, 5, generator=rng)

    found = average_precisions(logits, targets)

    theirs = multilabel_average_precision(logits, targets, 5, average=None, ignore_index=-1)
    np.testing.assert_allclose(np.array(found, float), theirs.numpy(), atol=1e-6)


def test_a_label_without_images_has_none(answers: Answers) -> None:
    logits, targets = answers
    targets = targets.clone()
    targets[:, 3] = 0

    found = average_precisions(logits, targets)

    assert found[3] is None
    assert sum(value is None for value in found) == 1


def test_saturated_logits_keep_their_order() -> None:
    """As probabilities of 32 bits they would all be 1."""
    logits, targets = torch.tensor([[40.0], [41.0], [42.0]]), torch.tensor([[0], [0], [1]])

    assert average_precisions(logits, targets) == [1.0]


@pytest.mark.parametrize(("kind", "levels"), [("voc07", 11), ("voc10", 0)])
def test_interpolations_are_those_of_the_devkits(answers: Answers, kind: str, levels: int) -> None:
    """Written as py-faster-rcnn's voc_eval does, from the curve of every rank."""
    logits, targets = answers
    found = average_precisions(logits[:, :3], targets[:, :3], kind)  # type: ignore[arg-type]

    for label in range(3):
        cut = sorted(set(logits[:, label].tolist()), reverse=True)
        said = [logits[:, label] >= value for value in cut]
        true = targets[:, label] == 1
        precision = np.array([float(true[s].double().mean()) for s in said])
        recall = np.array([float((s & true).sum().double() / true.sum()) for s in said])
        if levels:
            tops = [max(precision[recall >= t - 1e-9], default=0) for t in np.linspace(0, 1, 11)]
            expected = float(np.mean(tops))
        else:
            highest = np.maximum.accumulate(precision[::-1])[::-1]
            expected = float((np.diff(recall, prepend=0) * highest).sum())
        assert found[label] == pytest.approx(expected, abs=1e-9)


def test_f1_scores_are_scikit_learns(answers: Answers) -> None:
    logits, targets = answers
    said, true = (logits >= 0).numpy(), targets.numpy()

    found = f1_scores(logits, targets)

    assert found.overall == pytest.approx(f1_score(true, said, average="micro"))
    precision, recall = (f(true, said, average="macro") for f in (precision_score, recall_score))
    assert found.by_class == pytest.approx(2 * precision * recall / (precision + recall))


def test_nothing_said_is_0_and_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = f1_scores(torch.full((4, 2), -1.0), torch.ones(4, 2, dtype=torch.long))

    assert found == (0.0, 0.0)


def test_infinite_logits_are_ranked_first_and_last() -> None:
    logits = torch.tensor([[torch.inf], [1.0], [-torch.inf], [0.0]])

    found = average_precisions(logits, torch.tensor([[1], [0], [0], [1]]))

    assert found == [pytest.approx((1 + 2 / 3) / 2)]


def test_nan_is_no_rank() -> None:
    with pytest.raises(ValueError, match="NaN"):
        average_precisions(torch.tensor([[torch.nan], [1.0]]), torch.tensor([[1], [0]]))


def test_without_a_positive_f1_is_0() -> None:
    assert f1_scores(torch.ones(4, 2), torch.zeros(4, 2, dtype=torch.long)) == (0.0, 0.0)
