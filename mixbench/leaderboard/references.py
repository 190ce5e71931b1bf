"""Published results of a leaderboard's methods, and their agreement with measured results."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from statistics import stdev
from typing import NamedTuple

from mixbench.records.schema import Record, ReferenceRecord

LEAST = 0.5  # tolerance in the metric's unit, for rounding and library versions
Label = Callable[[Record], str]


class Source(NamedTuple):
    """The publication of a result, the place in it, and a remark."""

    citation: str
    where: str
    remark: str


def sources_of(records: Iterable[Record]) -> list[Source]:
    """Return the sources of the records' published results, sorted."""
    return sorted({
        Source(ref.citation, ref.where, ref.remark)
        for record in records
        for ref in record.references
        if ref.metric == record.primary.name
    })


def published(
    records: Sequence[Record], sources: Sequence[Source], label: Label
) -> dict[str, tuple[str, str]]:
    """Return each method's published results and their differences to the measured mean.

    The first text lists the published results with the marks of their sources. The second text has,
    for each of them, the measured mean minus the published result, and ``ok``, ``low`` or ``high``.
    A difference is ``ok`` if it is at most two standard errors of the difference of the means, or
    at most `LEAST`. If no published standard deviation is stated, the measured one is used.

    Parameters
    ----------
    records
        Records of one leaderboard.
    sources
        Sources of the published results; the mark of a source is its position, from 1.
    label
        Function that returns the label of a record's method.
    """
    numbers: dict[str, dict[int, ReferenceRecord]] = defaultdict(dict)
    values: dict[str, list[float]] = defaultdict(list)
    for record in records:
        values[label(record)].append(record.primary.value)
        for ref in record.references:
            if ref.metric == record.primary.name:
                mark = sources.index(Source(ref.citation, ref.where, ref.remark)) + 1
                numbers[label(record)][mark] = ref
    return {
        method: (
            ", ".join(f"{by_mark[mark].value:g} [{mark}]" for mark in sorted(by_mark)),
            ", ".join(_off(values[method], by_mark[mark]) for mark in sorted(by_mark)),
        )
        for method, by_mark in numbers.items()
    }


def _off(values: Sequence[float], ref: ReferenceRecord) -> str:
    """Return the mean of runs minus a published result, and ``ok``, ``low`` or ``high``."""
    off = sum(values) / len(values) - ref.value
    own = stdev(values) if len(values) > 1 else 0.0
    theirs = own if ref.std is None else ref.std
    error = (own**2 / len(values) + theirs**2 / (ref.num_seeds or 1)) ** 0.5
    verdict = "ok" if abs(off) <= max(2 * error, LEAST) else "high" if off > 0 else "low"
    return f"{off:+.2f} {verdict}"


def source_notes(sources: Sequence[Source]) -> Iterator[str]:
    """Yield a note for each source, with its mark."""
    for mark, (citation, where, remark) in enumerate(sources, 1):
        said = f". {remark[0].upper()}{remark[1:]}." if remark else "."
        yield f"[{mark}] {citation}, {where}{said}"
