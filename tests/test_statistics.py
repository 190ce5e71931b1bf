"""Whether the statistics keep their promises, on runs whose true difference is known."""

from collections.abc import Callable
from itertools import combinations, product
from math import gamma
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import expit
from scipy.stats import ttest_1samp

from mixbench.leaderboard.numbers import difference_text, p_text, plus_minus
from mixbench.leaderboard.ranks import (
    ALPHA,
    Pairing,
    Rule,
    Verdict,
    compared,
    expected_effect,
    rank_ranges,
    verdicts,
)
from mixbench.leaderboard.statistics import (
    Comparison,
    Variance,
    compare_items,
    compare_means,
    detectable,
    holm,
    pooled,
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


def tables(
    rng: np.random.Generator, seeds: int, items: int, accuracy: float, number: int = 7
) -> Floats:
    """Return the results of equal methods, (methods, seeds, items): right with varying chances."""
    difficulty = rng.normal(0, 3, items)
    middle = brentq(lambda x: float(expit(x + difficulty).mean()) - accuracy, -30, 30)
    skill = rng.normal(0, 0.1, (number, seeds, 1))
    right: Floats = 100.0 * (
        rng.random((number, seeds, items)) < expit(middle + difficulty + skill)
    )
    return right


def corrected(table: Floats) -> list[float | None]:
    """Return the corrected p-values of a table's methods against the first one."""
    return holm([compare_items(table[n], table[0]).p for n in range(1, len(table))])


SETTINGS = [
    pytest.param(*one, marks=pytest.mark.full if one != (3, 600, 0.985) else ())
    for one in product((3, 5, 10), (600, 10_000), (0.985, 0.75))
]


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "items", "accuracy"), SETTINGS)
def test_at_most_one_table_in_twenty_has_a_false_verdict(
    seeds: int, items: int, accuracy: float
) -> None:
    rng = np.random.default_rng([seeds, items, int(1000 * accuracy)])
    number = 2000
    false = sum(
        any(p is not None and p <= ALPHA for p in corrected(tables(rng, seeds, items, accuracy)))
        for _ in range(number)
    )

    assert false / number <= 0.065


@pytest.mark.parametrize("seeds", [3, 5])
def test_few_tables_have_a_false_verdict(seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    found = [corrected(tables(rng, seeds, 600, 0.985)) for _ in range(300)]

    assert np.mean([any(p is not None and p <= ALPHA for p in row) for row in found]) <= 0.065


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [5, 10])
@pytest.mark.parametrize("items", [600, 10_000])
@pytest.mark.parametrize("accuracy", [0.985, 0.75])
def test_a_difference_of_the_stated_size_is_found(seeds: int, items: int, accuracy: float) -> None:
    """One method of seven is better by what the table states as detectable."""
    rng = np.random.default_rng([seeds, items, int(1000 * accuracy)])
    sizes = []
    for _ in range(100):
        table = tables(rng, seeds, items, accuracy)
        found = [compare_items(table[n], table[0]).variance for n in range(1, 7)]
        typical = pooled([variance for variance in found if variance])
        sizes.append(detectable(typical, seeds, ALPHA / 6))
    stated = float(np.median(sizes))

    hits = 0
    for _ in range(1000):
        table = tables(rng, seeds, items, accuracy)
        table[1] += stated
        p = corrected(table)[0]
        hits += p is not None and p <= ALPHA

    assert 0.75 <= hits / 1000 <= 0.95


@pytest.mark.full
@pytest.mark.parametrize(("seeds", "spread"), [(3, 0.3), (5, 0.1)])
def test_without_a_difference_at_most_one_in_twenty_is_found(seeds: int, spread: float) -> None:
    rng = np.random.default_rng(seeds * 100 + int(spread * 10))
    found = [compare_items(*runs(rng, seeds, 500, spread)) for _ in range(TRIALS)]

    alarms = np.mean([comparison.p <= 0.05 for comparison in found])  # type: ignore[operator]
    covered = np.mean([c.low <= 0 <= c.high for c in found])  # type: ignore[operator]

    assert alarms <= 0.065
    assert 0.93 <= covered <= 0.99


@pytest.mark.full
def test_intervals_hold_a_true_difference_and_find_it() -> None:
    rng = np.random.default_rng(7)
    difficulty = np.random.default_rng(0).normal(1.5, 1.5, 200_000)
    true = 100 * float(np.mean(1 / (1 + np.exp(-difficulty - 0.5)) - 1 / (1 + np.exp(-difficulty))))
    found = [compare_items(*runs(rng, 5, 500, 0.1, gain=0.5)) for _ in range(500)]

    covered = np.mean([c.low <= true <= c.high for c in found])  # type: ignore[operator]

    assert 0.93 <= covered <= 0.99
    assert np.mean([c.p < 0.05 and c.difference > 0 for c in found]) > 0.9  # type: ignore[operator]


def test_seeds_that_coincide_by_chance_show_nothing() -> None:
    """Two more of 597 items in each of three seeds, at random items: 0.3 points, no certainty."""
    rng = np.random.default_rng(4)
    for _ in range(50):
        first, second = np.full((2, 3, 597), 100.0)
        for seed in range(3):
            first[seed, rng.choice(597, 8, replace=False)] = 0
            second[seed, rng.choice(597, 10, replace=False)] = 0

        found = compare_items(first, second)

        assert found.p is not None
        assert found.low is not None
        assert found.p > 0.2
        assert found.low < 0


def test_p_is_antisymmetric_and_independent_of_the_order() -> None:
    rng = np.random.default_rng(5)
    for _ in range(50):
        first, second = runs(rng, 4, 60, 0.2)
        found, swapped = compare_items(first, second), compare_items(second, first)
        seeds, items = rng.permutation(4), rng.permutation(60)
        again = compare_items(first[seeds][:, items], second[seeds][:, items])

        assert (swapped.difference, swapped.p) == (-found.difference, found.p)
        assert (again.p, again.low, again.high) == (found.p, found.low, found.high)


def test_p_is_that_of_its_definition() -> None:
    """By adaptive integration over the chi-squared variable."""
    rng = np.random.default_rng(6)
    for seeds in (3, 5, 10):
        found = compare_items(*runs(rng, seeds, 200, 0.3))
        assert found.variance is not None
        of_seeds, of_items, noise = found.variance

        def tail(at: float, seeds: int = seeds, v: tuple[float, ...] = found.variance) -> float:
            share = stats.chi2.ppf(at, seeds - 1) / (seeds - 1)
            scale = (v[1] + max(v[0] / share, v[2])) ** 0.5
            return 2 * float(stats.norm.sf(abs(found.difference) / scale))  # noqa: B023

        assert found.p == pytest.approx(quad(tail, 0, 1, limit=500)[0], rel=1e-3)
        assert min(of_seeds, of_items, noise) >= 0


def test_means_of_seeds_are_compared_as_scipy_does() -> None:
    first, second = [91.0, 92.5, 92.6], [90.0, 91.0, 92.0]

    found = compare_means(first, second)

    test = stats.ttest_rel(first, second)
    interval = test.confidence_interval(0.95)
    assert found.p == pytest.approx(test.pvalue)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-4)


@pytest.mark.parametrize("seeds", [1, 2])
def test_one_or_two_seeds_give_no_verdict(seeds: int) -> None:
    items = compare_items(*runs(np.random.default_rng(0), seeds, 100, 0.1, gain=9.0))
    means = compare_means([90.0] * seeds, [10.0] * seeds)

    for found in (items, means):
        assert found.seeds == seeds
        assert found[1:4] == (None, None, None)


def test_where_nothing_varies_there_is_no_p() -> None:
    assert compare_means([1.0, 1.0, 1.0], [0.5, 0.5, 0.5])[:4] == (0.5, None, None, None)
    same = np.full((3, 10), 100.0)
    assert compare_items(same, same)[:4] == (0.0, None, None, None)
    assert compare_items(same, same - 100)[:4] == (100.0, None, None, None)


def test_what_is_detectable_is_found_in_four_of_five_cases() -> None:
    """With seeds alone, by Student's paired t-test of differences with a known deviation."""
    rng = np.random.default_rng(0)
    for seeds, alpha in ((3, 0.05), (3, 0.003), (5, 0.01)):
        bias = (2 / (seeds - 1)) ** 0.5 * gamma(seeds / 2) / gamma((seeds - 1) / 2)
        size = detectable(Variance(2.0**2 / seeds * bias**2), seeds, alpha)
        differences = size + rng.normal(0, 2.0, (20_000, seeds))

        found = ttest_1samp(differences, 0, axis=1).pvalue < alpha

        assert float(found.mean()) == pytest.approx(0.8, abs=0.015)


def test_runs_of_the_baseline_tell_what_will_be_detectable(make_record: MakeRecord) -> None:
    """Two equal methods vary as the baseline does between its seeds."""
    rng, expected, found = np.random.default_rng(0), [], []
    pilot: dict[int, Record] = {}
    for _ in range(30):
        baseline, other = runs(rng, 5, 500, 0.2)
        for seed, items in enumerate(baseline[:3]):
            record = make_record("none", seed, float(items.mean()))
            metric = record.metrics[0].model_copy(update={"n": 500, "items": pack(items)})
            pilot[seed] = record.model_copy(update={"metrics": [metric, record.metrics[1]]})
        expected.append(expected_effect(pilot, 5, ALPHA / 4))
        variance = compare_items(baseline, other).variance
        assert variance is not None
        found.append(detectable(pooled([variance]), 5, ALPHA / 4))

    assert np.mean([value or 0 for value in expected]) == pytest.approx(np.mean(found), rel=0.25)
    assert expected_effect({0: pilot[0], 1: pilot[1]}, 5, ALPHA) is None


def test_holm_steps_down_and_leaves_out_what_is_absent() -> None:
    assert holm([0.01, None, 0.04, 0.03]) == [pytest.approx(0.03), None, 0.06, 0.06]
    assert holm([None]) == [None]


def test_the_same_runs_give_the_same_numbers_again() -> None:
    pair = runs(np.random.default_rng(0), 3, 100, 0.1)

    assert compare_items(*pair) == compare_items(*pair)


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


def verdict(first: str, second: str, word: str) -> Verdict:
    return Verdict(first, second, Comparison(0, None, None, None, 3, 0), None, word)  # type: ignore[arg-type]


def test_ranks_are_the_orders_that_the_comparisons_allow() -> None:
    methods = ["none", "mixup", "cutmix", "cutout"]
    found = [
        verdict("mixup", "none", "better"),
        verdict("cutmix", "none", "undecided"),
        verdict("cutout", "none", "worse"),
    ]

    assert rank_ranges(methods, found) == {
        "none": (2, 3), "mixup": (1, 2), "cutmix": (1, 4), "cutout": (3, 4)
    }  # fmt: skip
    assert rank_ranges(methods, [verdict("mixup", "none", "")]) == {}


def test_ranks_never_separate_what_is_undecided() -> None:
    """Whatever is decided, two undecided methods can stand in either order."""
    rng = np.random.default_rng(0)
    methods = ["a", "b", "c", "d", "e"]
    for _ in range(200):
        order = rng.permutation(methods).tolist()
        found = [
            verdict(a, b, "better" if rng.random() < 0.4 else "undecided")
            for a, b in combinations(order, 2)
        ]

        ranks = rank_ranges(methods, found)

        for one in found:
            if one.word == "undecided" and not ranks[one.first][1] >= ranks[one.second][0]:
                between = {v.second for v in found if v.first == one.first and v.word == "better"}
                assert between  # separated by way of others, which are decided


def test_only_declared_comparisons_are_corrected_for(make_record: MakeRecord) -> None:
    rng = np.random.default_rng(1)
    shares = {"none": 0.8, "mixup": 0.81, "cutmix": 0.5}
    methods = {
        name: {s: with_items(make_record(name, s), 100.0 * (rng.random(600) < share))
               for s in range(3)}
        for name, share in shares.items()
    }  # fmt: skip

    default = verdicts(methods, Rule(), higher_is_better=True)
    one = verdicts(methods, Rule((Pairing(("cutmix",), ("mixup",)),)), higher_is_better=True)

    assert [(v.first, v.second, v.word) for v in default] == [
        ("mixup", "none", "undecided"),
        ("cutmix", "none", "worse"),
    ]
    assert [(v.first, v.second, v.word) for v in one] == [("cutmix", "mixup", "worse")]
    assert one[0].corrected == one[0].comparison.p
    assert rank_ranges([*methods], one) == {"none": (1, 3), "mixup": (1, 2), "cutmix": (2, 3)}


def test_a_name_means_its_row_or_all_rows_of_the_method() -> None:
    rule = Rule((Pairing(("guided",), ("none", "guided[p=1]")),))

    assert rule.pairs(["none", "guided", "guided[p=1]", "mixup"]) == [
        ("guided", "none"), ("guided", "guided[p=1]")
    ]  # fmt: skip
    assert rule.pairs(["none", "guided[p=1]", "guided[p=2]"]) == [
        ("guided[p=1]", "none"), ("guided[p=2]", "none"), ("guided[p=2]", "guided[p=1]")
    ]  # fmt: skip


def test_numbers_have_the_digits_that_they_are_known_to() -> None:
    assert difference_text(0.123, -0.456, 0.702) == "+0.12 [-0.46, +0.70]"
    assert difference_text(0.0003, 0.0001, 0.0005) == "+0.00030 [+0.00010, +0.00050]"
    assert difference_text(-3.2, -12.0, 5.6) == "-3.2 [-12.0, +5.6]"
    assert difference_text(-0.001, -0.4, 0.398) == "+0.00 [-0.40, +0.40]"
    assert difference_text(1.234, None, None) == "+1.23"
    assert [p_text(p) for p in (0.0496, 0.0504, 0.9996, 0.0005, None)] == [
        ".0496", ".0504", "1.000", "<.001", ""
    ]  # fmt: skip
    assert plus_minus(99.996, 0.004) == "99.9960 ± 0.0040"
    assert plus_minus(97.5, float("nan")) == "97.50"


def test_records_of_other_items_are_compared_by_their_means(make_record: MakeRecord) -> None:
    first = {s: with_items(make_record("mixup", s), np.full(10, 100.0)) for s in range(2)}
    second = {s: with_items(make_record("none", s), np.full(12, 0.0)) for s in range(2)}

    found = compared(first, second)

    assert found is not None
    assert found.items == 0
