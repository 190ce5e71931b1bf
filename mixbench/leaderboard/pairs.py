"""Compare two methods on every leaderboard that contains both, and over all of them."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from mixbench.errors import UnknownName, UsageError
from mixbench.leaderboard.grouping import (
    comparison_groups,
    group_name,
    method_label,
    representative,
    trial,
)
from mixbench.leaderboard.numbers import difference_text, p_text
from mixbench.leaderboard.ranks import Rule, compared, runs_by_method, word_of
from mixbench.leaderboard.statistics import LEAST_SEEDS, Comparison, holm
from mixbench.leaderboard.table import data_set_of
from mixbench.records.schema import Record
from mixbench.registry.fingerprint import digest

LEAST_SETS = 6  # with fewer, Wilcoxon's test cannot give p < 0.05


class Pair(NamedTuple):
    """The comparison of two methods on one leaderboard.

    Attributes
    ----------
    leaderboard
        Name of the leaderboard.
    data_set
        Name of the data set whose images are tested.
    metric
        Name of the primary metric.
    unit
        Unit of the primary metric.
    gain
        Difference of the means in `unit`, positive if the first method is better.
    comparison
        Difference of the means (first minus second), with its confidence interval and p-value.
    corrected
        P-value, corrected over the leaderboards by Holm's method; None if it is unknown.
    word
        Whether the first method is better or worse, or the comparison is undecided; empty without a
        p-value.
    """

    leaderboard: str
    data_set: str
    metric: str
    unit: str
    gain: float
    comparison: Comparison
    corrected: float | None
    word: str


class Pairs(NamedTuple):
    """The comparisons of two methods on all leaderboards that contain both.

    Attributes
    ----------
    first, second
        Labels of the methods.
    pairs
        A comparison for each leaderboard.
    apart
        Names of the leaderboards on which the methods have no seed in common.
    """

    first: str
    second: str
    pairs: list[Pair]
    apart: list[str]


def compare_methods(
    records: Iterable[Record], first: str, second: str, rule: Rule | None = None
) -> Pairs:
    """Compare two methods on every leaderboard that contains both.

    Parameters
    ----------
    records
        Records of any tasks, models and protocols; trials are left out.
    first
        Label or name of the first method, or the path of its file.
    second
        Label or name of the second method, or the path of its file.
    rule
        When a method is better or worse.

    Raises
    ------
    UnknownName
        If a method has no record with a result, or no leaderboard contains both methods.
    UsageError
        If all results are those of trials, or the methods have no seed in common.
    """
    finished = [record for record in records if record.status == "ok"]
    whole = [record for record in finished if not trial(record)]
    if finished and not whole:
        raise UsageError("Trials, with --limit or --max-steps, are not compared: run the whole.")
    groups = comparison_groups(whole)
    good = [record for group in groups for record in group]
    first, second = _label(first, good), _label(second, good)
    found, apart, rule = [], [], rule or Rule()
    for group in groups:
        runs = runs_by_method((method_label(record), record) for record in group)
        if first not in runs or second not in runs:
            continue
        record = representative(group)
        if c := compared(runs[first], runs[second]):
            found.append((group_name(record), data_set_of(record), record.primary, c))
        else:
            apart.append(group_name(record))
    if apart and not found:
        raise UsageError(
            f"{first} and {second} have no seed in common on {', '.join(apart)}: run both with the "
            "same seeds."
        )
    if not found:
        others = {method_label(record) for record in good} - {first, second}
        raise UnknownName(f"method on a task of {first}", second, others)
    corrected = holm([comparison.p for *_, comparison in found])
    return Pairs(
        first,
        second,
        [
            Pair(
                *(board, data_set, m.name, m.unit),
                *(c.difference * (1 if m.higher_is_better else -1), c, p),
                word_of(c.difference, p, rule, higher_is_better=m.higher_is_better),
            )
            for (board, data_set, m, c), p in zip(found, corrected, strict=True)
        ],
        apart,
    )


def _label(name: str, records: Sequence[Record]) -> str:
    """Return the label of a method, given its label, its name or the path of its file."""
    known = {method_label(record) for record in records}
    if name in known:
        return name
    stem = name
    if name.endswith(".py"):
        stem, path = Path(name).stem, Path(name)
        code = digest(path) if path.is_file() else ""
        same = {method_label(r) for r in records if (r.method.name, r.method.code) == (stem, code)}
        if len(same) == 1:
            return same.pop()
    plain = (record for record in records if not record.method.changed)
    meant = {method_label(record) for record in plain if record.method.name == stem}
    if len(meant) != 1:
        raise UnknownName("recorded method", name, known)
    return meant.pop()


def to_lines(found: Pairs) -> Iterator[str]:
    """Yield the comparison as text: one line for each leaderboard, and a summary line."""
    yield f"{found.first} minus {found.second}"
    width = max(len(pair.leaderboard) for pair in found.pairs)
    for pair in found.pairs:
        yield f"{pair.leaderboard:{width}}  {_line(pair)}"
    yield _over_all(found.pairs)
    if found.apart:
        yield f"not compared, without a seed in common: {', '.join(found.apart)}"


def _line(pair: Pair) -> str:
    """Format a difference with its confidence interval, p-value, verdict and sample size."""
    c = pair.comparison
    p = "" if pair.corrected is None else f"  p {p_text(pair.corrected)}"
    by = f"{c.seeds} seeds" if c.seeds > 1 else "1 seed"
    by += f" x {c.items} items" if c.items else ""
    few = f"no verdict with fewer than {LEAST_SEEDS} seeds" if c.seeds < LEAST_SEEDS else ""
    return f"{pair.metric} {difference_text(*c[:3])} {pair.unit}{p}  {pair.word or few}  ({by})"


def _over_all(pairs: Sequence[Pair]) -> str:
    """Return on how many leaderboards each method is ahead, with Wilcoxon's test over data sets."""
    ahead, behind = sum(p.gain > 0 for p in pairs), sum(p.gain < 0 for p in pairs)
    text = f"first method ahead on {ahead}, behind on {behind} of {len(pairs)} leaderboards"
    gains: dict[str, list[float]] = defaultdict(list)
    for pair in pairs:
        gains[pair.data_set].append(pair.gain)
    if len(gains) < LEAST_SETS:
        return f"{text}; p corrected for their number (Holm); too few data sets for Wilcoxon's test"
    from scipy.stats import wilcoxon

    p = float(wilcoxon([mean(of_set) for of_set in gains.values()]).pvalue)
    return (
        f"{text}; p corrected for their number (Holm); Wilcoxon's test over {len(gains)} data "
        f"sets: p = {p:.3g}"
    )


def to_json(found: Pairs) -> str:
    """Return the comparison as JSON."""
    rows = [{**p._asdict(), "comparison": p.comparison._asdict()} for p in found.pairs]
    return json.dumps(
        {
            "first": found.first,
            "second": found.second,
            "leaderboards": rows,
            "without_common_seeds": found.apart,
        },
        indent=1,
    )
