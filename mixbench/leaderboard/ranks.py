"""The comparisons of a leaderboard, the ranks that they allow, and their statistical power."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal, NamedTuple

import numpy as np

from mixbench.declare import BASELINE
from mixbench.leaderboard.statistics import (
    LEAST_SEEDS,
    Comparison,
    Variance,
    compare_items,
    compare_means,
    detectable,
    holm,
    pooled,
)
from mixbench.records.schema import Record

ALPHA = 0.05  # family-wise error rate over all comparisons of a table
Runs = Mapping[int, Record]  # the runs of one method, by seed
Word = Literal["better", "worse", "undecided"]


class Pairing(NamedTuple):
    """Methods that are each compared with each of some other methods, by name or label.

    Attributes
    ----------
    methods
        Labels of rows, or names of methods without a row of that label, which mean all their rows;
        empty for all rows.
    others
        Labels or names of the methods that they are compared with.
    """

    methods: tuple[str, ...] = ()
    others: tuple[str, ...] = (BASELINE,)


@dataclass(frozen=True)
class Rule:
    """Which methods are compared, and when one is better or worse than another.

    Attributes
    ----------
    pairings
        Declared comparisons; Holm's correction covers these and no others.
    alpha
        Family-wise error rate over all comparisons of a table.
    margin
        Smallest difference that counts, in the metric's unit.
    among
        Labels of the rows that are compared; None for all.
    """

    pairings: tuple[Pairing, ...] = (Pairing(),)
    alpha: float = ALPHA
    margin: float = 0.0
    among: frozenset[str] | None = None

    def pairs(self, labels: Sequence[str]) -> list[tuple[str, str]]:
        """Return the pairs of methods that are compared, each pair once."""
        labels = [label for label in labels if self.among is None or label in self.among]
        found: dict[frozenset[str], tuple[str, str]] = {}
        for pairing in self.pairings:
            firsts = _chosen(pairing.methods or tuple(labels), labels)
            for first, second in product(firsts, _chosen(pairing.others, labels)):
                if first != second:
                    pair = (second, first) if first == BASELINE else (first, second)
                    found.setdefault(frozenset(pair), pair)
        return [*found.values()]

    def unmatched(self, labels: Sequence[str]) -> list[str]:
        """Return the declared names that mean no row, except the baseline."""
        names = {name for pairing in self.pairings for name in (*pairing.methods, *pairing.others)}
        return sorted(n for n in names - {BASELINE} if not _chosen([n], labels))


def _chosen(names: Sequence[str], labels: Sequence[str]) -> list[str]:
    """Return the labels that some names mean: the label itself, else all labels of the method."""
    meant = {name for name in names if name in labels}
    others = set(names) - meant
    return [label for label in labels if label in meant or re.split(r"\[| \(", label)[0] in others]


class Verdict(NamedTuple):
    """A declared comparison of two methods.

    Attributes
    ----------
    first, second
        Labels of the methods.
    comparison
        Difference of the first to the second.
    corrected
        P-value, corrected over the declared comparisons (Holm); None if there is none.
    word
        Whether the first method is better or worse than the second, or undecided; empty if the
        number of seeds allows no verdict.
    """

    first: str
    second: str
    comparison: Comparison
    corrected: float | None
    word: Word | Literal[""]


def compared(first: Runs, second: Runs) -> Comparison | None:
    """Compare two methods over their common seeds; return None if there are none.

    The comparison is paired by item if all records contain per-item scores, and by seed otherwise.
    """
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        return None
    every = [[runs[seed].primary.items for seed in seeds] for runs in (first, second)]
    scores = [[items.scores for items in row if items] for row in every]
    same = {len(item_scores) for row in scores for item_scores in row}
    if min(map(len, scores)) < len(seeds) or len(same) != 1:
        values = ([runs[seed].primary.value for seed in seeds] for runs in (first, second))
        return compare_means(*values)
    return compare_items(np.stack(scores[0]), np.stack(scores[1]))


def compared_by_seed(first: Runs, second: Runs, metric: str) -> Comparison | None:
    """Compare two methods by a metric, paired by seed; return None if they do not have it."""
    seeds = sorted(first.keys() & second.keys())
    at = metric, "last"
    values = [
        [one.value for seed in seeds for one in runs[seed].metrics if (one.name, one.at) == at]
        for runs in (first, second)
    ]
    if not seeds or any(len(row) < len(seeds) for row in values):
        return None
    return compare_means(*values)


def verdicts(runs: Mapping[str, Runs], rule: Rule, *, higher_is_better: bool) -> list[Verdict]:
    """Return the declared comparisons of the methods of a leaderboard."""
    pairs = rule.pairs([*runs])
    found = [(a, b, c) for a, b in pairs if (c := compared(runs[a], runs[b])) is not None]
    corrected = holm([comparison.p for _, _, comparison in found])
    return [
        Verdict(a, b, c, p, word_of(c.difference, p, rule, higher_is_better=higher_is_better))
        for (a, b, c), p in zip(found, corrected, strict=True)
    ]


def word_of(
    difference: float, p: float | None, rule: Rule, *, higher_is_better: bool
) -> Word | Literal[""]:
    """Return whether a difference is better, worse or undecided; empty without a p-value."""
    if p is None:
        return ""
    if p > rule.alpha or abs(difference) < rule.margin:
        return "undecided"
    return "better" if (difference > 0) == higher_is_better else "worse"


def rank_ranges(methods: Sequence[str], found: Sequence[Verdict]) -> dict[str, tuple[int, int]]:
    """Return the first and the last rank that each method can have according to the comparisons.

    A method ranks after every method that is better, and before every method that is worse, also by
    way of others. All other orders are possible. Without any verdict there are no ranks.
    """
    if not any(verdict.word for verdict in found):
        return {}
    above: dict[str, set[str]] = {method: set() for method in methods}
    for verdict in found:
        if verdict.word == "better":
            above[verdict.second].add(verdict.first)
        elif verdict.word == "worse":
            above[verdict.first].add(verdict.second)
    better = {method: _reached(method, above) for method in methods}
    worse = {m: sum(m in others for others in better.values()) for m in methods}
    ranges = {m: sorted((1 + len(better[m]), len(methods) - worse[m])) for m in methods}
    return {method: (first, last) for method, (first, last) in ranges.items()}


def _reached(start: str, above: Mapping[str, set[str]]) -> set[str]:
    """Return all methods that are better than one, directly or by way of others."""
    found: set[str] = set()
    waiting = [start]
    while waiting:
        new = above[waiting.pop()] - found
        found |= new
        waiting += new
    return found - {start}


def power_note(found: Sequence[Verdict], rule: Rule, unit: str) -> str:
    """Return a note with the minimum detectable effect at 80 % power; empty if it is unknown."""
    known = [verdict.comparison for verdict in found if verdict.comparison.variance]
    variances = [comparison.variance for comparison in known if comparison.variance]
    if not variances:
        return ""
    seeds, typical = min(comparison.seeds for comparison in known), pooled(variances)
    error = (typical.seeds + typical.items) ** 0.5
    least = detectable(typical, seeds, rule.alpha / len(known))
    of = f"; significance level divided by {len(known)} comparisons" if len(known) > 1 else ""
    told = "points" if unit == "%" else unit
    return (
        f"Minimum detectable effect at 80 % power: with {seeds} seeds, {least:.2g} {told} "
        f"(standard error of a difference: {error:.2g}{of}), for methods that vary as these do. "
        "A smaller difference that is not significant is undecided, not absent."
    )


def expected_effect(pilot: Runs, seeds: int, alpha: float) -> float | None:
    """Return the minimum detectable effect that runs of the baseline let expect, or None.

    Two methods are taken to differ as the baseline does between seeds: each run is compared with
    that of the next seed. Runs of one seed share what it draws, so that they usually differ less;
    but methods find different images hard, which runs of one method cannot tell.

    Parameters
    ----------
    pilot
        Runs of the baseline, at least `LEAST_SEEDS`.
    seeds
        Number of seeds that are planned.
    alpha
        Significance level of one comparison.
    """
    known = sorted(pilot)
    if len(known) < LEAST_SEEDS:
        return None
    following = dict(zip(known, (*known[1:], known[0]), strict=True))
    found = compared(pilot, {seed: pilot[after] for seed, after in following.items()})
    if found is None or found.variance is None:
        return None
    # The differences in a circle sum to 0, so that one of them is not free.
    share = (len(known) - 1) / seeds
    of_seeds, _, noise = found.variance
    planned = Variance(max(of_seeds, noise) * share, 0.0, noise * share)
    return detectable(planned, seeds, alpha)


def seeds_note(runs: Mapping[str, Runs], found: Sequence[Verdict]) -> str:
    """Return a note about comparisons without a verdict for lack of seeds; empty if all have one.

    Without any comparison, the note is about the numbers of seeds of the methods.
    """
    few = [v for v in found if v.comparison.seeds < LEAST_SEEDS]
    most = max((v.comparison.seeds for v in found), default=max(map(len, runs.values())))
    if found and few and most >= LEAST_SEEDS:
        pairs = ", ".join(f"{v.first} and {v.second} ({v.comparison.seeds})" for v in few)
        return f"No verdict with fewer than {LEAST_SEEDS} common seeds: {pairs}."
    if most >= LEAST_SEEDS:
        return ""
    told = "One seed cannot" if most == 1 else f"{most} seeds cannot"
    return (
        f"{told} show a difference between methods, because the variation over seeds is unknown: "
        f"there are no ranks, intervals or p-values. Run at least {LEAST_SEEDS} seeds, better 5 "
        "(--seeds 5)."
    )


def runs_by_method(records: Iterable[tuple[str, Record]]) -> dict[str, dict[int, Record]]:
    """Group pairs of a method label and a record by method and seed."""
    found: dict[str, dict[int, Record]] = {}
    for label, record in records:
        found.setdefault(label, {})[record.seed] = record
    return found
