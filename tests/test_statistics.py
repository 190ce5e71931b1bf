"""Whether the statistics keep their promises, on runs whose true difference is known."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from scipy.stats import ttest_1samp
from statsmodels.stats.contingency_tables import mcnemar

from mixbench.leaderboard.ranks import compared, shared_ranks
from mixbench.leaderboard.statistics import (
    compare_items,
    compare_means,
    detectable,
    holm,
    mcnemar_p,
)
from mixbench.records.items import Items, pack
from mixbench.records.schema import Record

Floats = NDArray[np.float64]
MakeRecord = Callable[..., Record]
TRIALS = 1000


def runs(
    rng: np.random.Generator, seeds: int, items: int, spread: float, gain: float = 0.0
) -> tuple[Floats, Floats]:
    """Return two methods' results on items of unlike difficulty, (seeds, items), in percent.

    Parameters
    ----------
    spread
        How much a seed's skill varies, on the scale of the logits.
    gain
        Of the first method, on the same scale.
    """
    difficulty = rng.normal(1.5, 1.5, items)
    skill = rng.normal(0, spread, (2, seeds, 1))
    chance = 1 / (1 + np.exp(-(difficulty + skill + np.array([gain, 0.0])[:, None, None])))
    first, second = 100.0 * (rng.random((2, seeds, items)) < chance)
    return first, second


@pytest.mark.full
@pytest.mark.parametrize(("seeds", "spread"), [(1, 0.0), (3, 0.0), (3, 0.3), (5, 0.1)])
def test_without_a_difference_one_in_twenty_is_found(seeds: int, spread: float) -> None:
    rng = np.random.default_rng(seeds * 100 + int(spread * 10))
    found = [compare_items(*runs(rng, seeds, 500, spread)) for _ in range(TRIALS)]

    alarms = np.mean([comparison.p <= 0.05 for comparison in found])  # type: ignore[operator]
    covered = np.mean([c.low <= 0 <= c.high for c in found])  # type: ignore[operator]

    assert 0.035 <= alarms <= 0.065
    assert 0.93 <= covered <= 0.97


@pytest.mark.full
def test_intervals_hold_a_true_difference_and_find_it() -> None:
    rng = np.random.default_rng(7)
    difficulty = np.random.default_rng(0).normal(1.5, 1.5, 200_000)
    true = 100 * float(np.mean(1 / (1 + np.exp(-difficulty - 0.5)) - 1 / (1 + np.exp(-difficulty))))
    found = [compare_items(*runs(rng, 5, 500, 0.1, gain=0.5)) for _ in range(500)]

    covered = np.mean([c.low <= true <= c.high for c in found])  # type: ignore[operator]

    assert 0.93 <= covered <= 0.98
    assert np.mean([c.p < 0.05 and c.difference > 0 for c in found]) > 0.9  # type: ignore[operator]


def test_means_of_seeds_are_compared_as_scipy_does() -> None:
    first, second = [91.0, 92.5, 92.6], [90.0, 91.0, 92.0]

    found = compare_means(first, second)

    test = stats.ttest_rel(first, second)
    interval = test.confidence_interval(0.95)
    assert found.p == pytest.approx(test.pvalue)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert compare_means([1.0], [2.0]) == (-1.0, None, None, None, 1, 0)


def test_a_single_pair_of_runs_is_mcnemars() -> None:
    first, second = np.repeat([100.0, 0.0, 100.0], [12, 3, 50]), np.repeat([0.0, 100.0], [12, 53])

    assert mcnemar_p(first, second) == pytest.approx(mcnemar([[0, 12], [3, 0]]).pvalue)


def test_what_is_detectable_is_found_in_four_of_five_cases() -> None:
    rng = np.random.default_rng(0)
    for seeds, alpha in ((3, 0.05), (3, 0.003), (5, 0.01)):
        differences = detectable(2.0, seeds, alpha) + rng.normal(0, 2.0, (20_000, seeds))

        found = ttest_1samp(differences, 0, axis=1).pvalue < alpha

        assert float(found.mean()) == pytest.approx(0.8, abs=0.015)


def test_holm_steps_down_and_leaves_out_what_is_absent() -> None:
    assert holm([0.01, None, 0.04, 0.03]) == [pytest.approx(0.03), None, 0.06, 0.06]
    assert holm([None]) == [None]


def test_what_seeds_can_show_is_the_power_of_students_test() -> None:
    """0.49 and 0.25 points at a deviation of 0.15, by the noncentral t distribution."""
    assert detectable(0.15, 3, 0.05) == pytest.approx(0.49, abs=0.005)
    assert detectable(0.15, 5, 0.05) == pytest.approx(0.25, abs=0.005)


def test_the_same_runs_give_the_same_numbers_again() -> None:
    pair = runs(np.random.default_rng(0), 3, 100, 0.1)

    assert compare_items(*pair) == compare_items(*pair)


def test_identical_runs_do_not_differ() -> None:
    same = np.full((3, 10), 100.0)

    assert compare_items(same, same) == (0.0, 0.0, 0.0, 1.0, 3, 10)


def test_items_are_packed_and_read_as_they_were() -> None:
    scores = np.random.default_rng(0).choice([0.0, 100 / 3, 100.0], 1000)

    packed = pack(scores)

    assert packed is not None
    assert (packed.scores == scores).all()
    assert len(packed.which) < 500
    assert pack(np.arange(300.0)) is None


@pytest.mark.parametrize("which", ["!", "AAAA", "eJxjBAAAAgAB"])
def test_items_that_are_none_are_refused(which: str) -> None:
    with pytest.raises(ValueError, match="the scores of the items"):
        _ = Items(levels=[0.0], which=which).scores


def with_items(record: Record, scores: NDArray[np.floating[Any]]) -> Record:
    """Return a record that tells of each item."""
    content: dict[str, Any] = record.model_dump(by_alias=True)
    packed = pack(scores)
    assert packed is not None
    content["metrics"][0] |= {"items": packed.model_dump(), "value": float(scores.mean())}
    content["metrics"][0]["n"] = len(scores)
    return Record.model_validate(content)


def test_methods_that_cannot_be_told_apart_share_a_rank(make_record: MakeRecord) -> None:
    rng = np.random.default_rng(1)
    shares = {"none": 0.8, "mixup": 0.81, "cutmix": 0.5}
    methods = {
        name: {s: with_items(make_record(name, s), 100.0 * (rng.random(600) < share))
               for s in range(3)}
        for name, share in shares.items()
    }  # fmt: skip

    ranks = shared_ranks(methods, higher_is_better=True)

    assert ranks == {"none": 1, "mixup": 1, "cutmix": 3}
    assert shared_ranks(methods, higher_is_better=False) == {"none": 2, "mixup": 2, "cutmix": 1}


def test_records_of_other_items_are_compared_by_their_means(make_record: MakeRecord) -> None:
    first = {s: with_items(make_record("mixup", s), np.full(10, 100.0)) for s in range(2)}
    second = {s: with_items(make_record("none", s), np.full(12, 0.0)) for s in range(2)}

    found = compared(first, second)

    assert found is not None
    assert found.items == 0
