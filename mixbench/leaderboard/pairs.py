"""Two methods side by side: on every question that both answer, and over all of them."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from mixbench.errors import UnknownName
from mixbench.leaderboard.grouping import (
    comparison_groups,
    group_name,
    method_label,
    representative,
)
from mixbench.leaderboard.ranks import compared, runs_by_method
from mixbench.leaderboard.rows import verdict
from mixbench.leaderboard.statistics import Comparison, holm
from mixbench.records.schema import Record

LEAST_TASKS = 6  # fewer cannot give Wilcoxon's test a p-value below 5 %


class Pair(NamedTuple):
    """How two methods compare on one question.

    Attributes
    ----------
    gain
        Of the first over the second, whatever direction of the metric is better.
    corrected
        The p-value, by Holm over the questions.
    """

    question: str
    metric: str
    unit: str
    gain: float
    comparison: Comparison
    corrected: float | None


class Pairs(NamedTuple):
    """How two methods compare, by question."""

    first: str
    second: str
    pairs: list[Pair]


def compare_methods(records: Iterable[Record], first: str, second: str) -> Pairs:
    """Return how two methods compare on every question that both answer.

    Raises
    ------
    UnknownName
        If one of them has no record with a result, or they have no question in common.
    """
    good = [record for record in records if record.status == "ok"]
    first, second = _label(first, good), _label(second, good)
    found = []
    for group in comparison_groups(good):
        runs = runs_by_method((method_label(record), record) for record in group)
        if first in runs and second in runs and (c := compared(runs[first], runs[second])):
            record = representative(group)
            found.append((group_name(record), record.primary, c))
    if not found:
        others = {method_label(record) for record in good} - {first, second}
        raise UnknownName(f"method on a task of {first}", second, others)
    corrected = holm([comparison.p for _, _, comparison in found])
    return Pairs(
        first,
        second,
        [
            Pair(name, m.name, m.unit, c.difference * (1 if m.higher_is_better else -1), c, p)
            for (name, m, c), p in zip(found, corrected, strict=True)
        ],
    )


def _label(name: str, records: Sequence[Record]) -> str:
    """Return the label that is meant by a label, a method's name or the path of its file."""
    known = {method_label(record) for record in records}
    if name in known:
        return name
    stem = Path(name).stem if name.endswith(".py") else name
    plain = (record for record in records if not record.method.changed)
    meant = {method_label(record) for record in plain if record.method.name == stem}
    if len(meant) != 1:
        raise UnknownName("recorded method", name, known)
    return meant.pop()


def to_lines(found: Pairs) -> Iterator[str]:
    """Yield what people read: a line for each question, and one over all."""
    yield f"{found.first} less {found.second}"
    width = max(len(pair.question) for pair in found.pairs)
    for pair in found.pairs:
        yield f"{pair.question:{width}}  {_line(pair)}"
    yield _over_all(found.pairs)


def _line(pair: Pair) -> str:
    """Return one question's difference, how sure it is, and by what it is known."""
    c = pair.comparison
    interval = "" if c.low is None else f" [{c.low:+.2f}, {c.high:+.2f}]"
    p = "" if pair.corrected is None else f"  p {pair.corrected:.3g}"
    by = f"{c.seeds} seeds" if c.seeds > 1 else "1 seed"
    by += f" x {c.items} items" if c.items else ""
    word = verdict({"p": pair.corrected, "difference": pair.gain}, higher_is_better=True)
    return f"{pair.metric} {c.difference:+.2f} {pair.unit}{interval}{p}  {word}  ({by})"


def _over_all(pairs: Sequence[Pair]) -> str:
    """Return how often each is ahead, and Wilcoxon's test where there are questions enough."""
    ahead, behind = sum(p.gain > 0 for p in pairs), sum(p.gain < 0 for p in pairs)
    text = f"ahead on {ahead}, behind on {behind} of {len(pairs)} questions"
    if len(pairs) < LEAST_TASKS:
        return f"{text}; p corrected for their number (Holm); too few for a test over them"
    from scipy.stats import wilcoxon

    p = float(wilcoxon([pair.gain for pair in pairs]).pvalue)
    return f"{text}; p corrected for their number (Holm); Wilcoxon over them: p = {p:.3g}"


def to_json(found: Pairs) -> str:
    """Return the comparison as JSON."""
    rows = [{**p._asdict(), "comparison": p.comparison._asdict()} for p in found.pairs]
    return json.dumps({"first": found.first, "second": found.second, "questions": rows}, indent=1)
