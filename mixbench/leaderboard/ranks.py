"""The methods of a leaderboard against each other: who differs, and who shares a rank."""

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

ALPHA = 0.05  # of false alarms that all comparisons of a table together may raise
Runs = Mapping[int, Record]  # of one method, by seed


class Verdict(NamedTuple):
    """What a method's comparison to the baseline says."""

    comparison: Comparison
    corrected: float | None  # by Holm, over the table's methods


def compared(first: Runs, second: Runs) -> Comparison | None:
    """Return how two methods compare over the seeds that both have; None if there are none.

    Item by item, where the records tell the items; a single run of right and wrong items has the
    p-value of McNemar's test.
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
    """Return every other method's comparison to the baseline; p corrected for their number."""
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
    """Return every method's rank: one more than how many methods are significantly better.

    Of all pairs, corrected by Holm; what cannot be told apart shares a rank.
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
    """Say what the number of seeds can show: the difference that is found in four of five cases.

    Empty where there is one seed, or nothing to compare.
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
    of = f", corrected for {len(spreads)} comparisons" if len(spreads) > 1 else ""
    told = "points" if unit == "%" else unit
    return (
        f"What {min(numbers)} seeds can show: differences of about {least:.2g} {told} and more are "
        f"found in four of five cases (paired seeds vary by {np.median(spreads):.2g}{of}). "
        "A smaller one that is not found is undecided, not absent."
    )


def runs_by_method(records: Iterable[tuple[str, Record]]) -> dict[str, dict[int, Record]]:
    """Return the runs of labelled records by method and seed."""
    found: dict[str, dict[int, Record]] = {}
    for label, record in records:
        found.setdefault(label, {})[record.seed] = record
    return found
