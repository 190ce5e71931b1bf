"""Published numbers beside measured ones: where they stand, and how far off the latter are."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from statistics import stdev
from typing import NamedTuple

from mixbench.records.schema import Record, ReferenceRecord

LEAST = 0.5  # of the metric's unit: what rounding and library versions may do to a number
Label = Callable[[Record], str]


class Source(NamedTuple):
    """Where a number was published."""

    citation: str
    where: str
    remark: str


def sources_of(records: Iterable[Record]) -> list[Source]:
    """Return the publications of numbers for these records, sorted."""
    return sorted({
        Source(ref.citation, ref.where, ref.remark)
        for record in records
        for ref in record.references
        if ref.metric == record.primary.name
    })


def published(
    records: Sequence[Record], sources: Sequence[Source], label: Label
) -> dict[str, tuple[str, str]]:
    """Return every method's published numbers with marks, and how far the measured mean is off.

    The latter for each number: the deviation, and ``ok``, ``low`` or ``high``. A deviation is much
    if it is more than two standard errors of the two means' difference, the published one's scatter
    taken to be the measured one's where it is not stated, and more than `LEAST`.
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
    """Return how far the mean of some runs is from a published number, and what that means."""
    off = sum(values) / len(values) - ref.value
    own = stdev(values) if len(values) > 1 else 0.0
    theirs = own if ref.std is None else ref.std
    error = (own**2 / len(values) + theirs**2 / (ref.num_seeds or 1)) ** 0.5
    verdict = "ok" if abs(off) <= max(2 * error, LEAST) else "high" if off > 0 else "low"
    return f"{off:+.2f} {verdict}"


def source_notes(sources: Sequence[Source]) -> Iterator[str]:
    """Yield the publications, by their marks."""
    for mark, (citation, where, remark) in enumerate(sources, 1):
        said = f". {remark[0].upper()}{remark[1:]}." if remark else "."
        yield f"[{mark}] {citation}, {where}{said}"
