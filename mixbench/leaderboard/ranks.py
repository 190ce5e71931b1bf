"""Pairwise comparisons of the methods of a leaderboard, shared ranks, and statistical power."""

from collections.abc import Callable, Iterable, Mapping
from itertools import combinations
from typing import NamedTuple

import numpy as np

from mixbench.declare import BASELINE
from mixbench.leaderboard.statistics import (
    Comparison,
    compare_items,
    compare_means,
    detectable,
    holm,
    mcnemar_p,
)
from mixbench.records.schema import Record

ALPHA = 0.05  # family-wise error rate over all comparisons of a table
Runs = Mapping[int, Record]  # the runs of one method, by seed


class Verdict(NamedTuple):
    """The comparison of a method with the baseline."""

    comparison: Comparison
    corrected: float | None  # p-value, corrected over the table's methods (Holm)


def compared(first: Runs, second: Runs) -> Comparison | None:
    """Compare two methods over their common seeds; return None if there are none.

    The comparison is paired by item if all records contain per-item scores, and by seed otherwise.
    For one seed and scores that are right or wrong, the p-value is that of McNemar's test.
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
    found = compare_items(np.stack(scores[0]), np.stack(scores[1]))
    binary = all(len(items.levels) <= 2 for row in every for items in row if items)
    if len(seeds) == 1 and binary:
        return found._replace(p=mcnemar_p(scores[0][0], scores[1][0]))
    return found


Compare = Callable[[Runs, Runs], Comparison | None]


def against_baseline(runs: Mapping[str, Runs], compare: Compare = compared) -> dict[str, Verdict]:
    """Compare each method with the baseline; correct p for the number of methods (Holm)."""
    if BASELINE not in runs:
        return {}
    found = {
        method: comparison
        for method, own in runs.items()
        if method != BASELINE and (comparison := compare(own, runs[BASELINE]))
    }
    corrected = holm([comparison.p for comparison in found.values()])
    return {m: Verdict(c, p) for (m, c), p in zip(found.items(), corrected, strict=True)}


def shared_ranks(
    runs: Mapping[str, Runs], *, higher_is_better: bool, compare: Compare = compared
) -> dict[str, int]:
    """Return each method's rank: one more than the number of significantly better methods.

    All pairs are compared, with Holm's correction. Methods that do not differ significantly can
    share a rank.
    """
    pairs = [*combinations(runs, 2)]
    found = [compare(runs[a], runs[b]) for a, b in pairs]
    corrected = holm([comparison and comparison.p for comparison in found])
    ranks = dict.fromkeys(runs, 1)
    for (a, b), comparison, p in zip(pairs, found, corrected, strict=True):
        if comparison and p is not None and p <= ALPHA:
            a_wins = (comparison.difference > 0) == higher_is_better
            ranks[b if a_wins else a] += 1
    return ranks


def power_note(runs: Mapping[str, Runs], unit: str) -> str:
    """Return a note with the minimum detectable effect at 80 % power.

    The note is empty if there is one seed, or no method to compare with the baseline.
    """
    others = [own for method, own in runs.items() if method != BASELINE]
    base = runs.get(BASELINE, {})
    spreads, numbers = [], []
    for own in others:
        seeds = own.keys() & base.keys()
        if len(seeds) > 1:
            differences = [own[seed].primary.value - base[seed].primary.value for seed in seeds]
            spreads.append(float(np.std(differences, ddof=1)))
            numbers.append(len(seeds))
    if not spreads or not any(spreads):
        return ""
    least = detectable(float(np.median(spreads)), min(numbers), ALPHA / len(spreads))
    of = f"; significance level divided by {len(spreads)} comparisons" if len(spreads) > 1 else ""
    told = "points" if unit == "%" else unit
    return (
        f"Minimum detectable effect at 80 % power: with {min(numbers)} seeds, {least:.2g} {told} "
        f"(standard deviation of paired differences: {np.median(spreads):.2g}{of}). "
        "A smaller difference that is not significant is undecided, not absent."
    )


def runs_by_method(records: Iterable[tuple[str, Record]]) -> dict[str, dict[int, Record]]:
    """Group pairs of a method label and a record by method and seed."""
    found: dict[str, dict[int, Record]] = {}
    for label, record in records:
        found.setdefault(label, {})[record.seed] = record
    return found
