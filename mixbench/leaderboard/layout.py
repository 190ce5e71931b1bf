"""A table in the layout of a publication, with measured and published results in each cell."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from math import nan
from statistics import mean, stdev

import pandas as pd

from mixbench.declare.facts import ParameterValue
from mixbench.errors import UsageError
from mixbench.leaderboard.grouping import (
    comparison_groups,
    group_name,
    method_label,
    representative,
)
from mixbench.leaderboard.numbers import plus_minus
from mixbench.leaderboard.suite import Layout, Published, Suite
from mixbench.leaderboard.table import title_of
from mixbench.records.schema import Record
from mixbench.registry.parameters import parameters_of
from mixbench.registry.units import find

Place = tuple[str, str]  # the headings of a row and a column
Facets = Mapping[str, ParameterValue]  # model, task, method, metric, and the method's parameters


def laid_out(suite: Suite, records: Iterable[Record], *, beside: bool = True) -> pd.DataFrame:
    """Return a suite's table as text; each cell is "measured ± standard deviation (published)".

    Without a `[layout]`, rows are leaderboards and columns the labels of methods.

    Parameters
    ----------
    suite
        Suite that defines the layout and the published results.
    records
        Records of the suite's cells. Records without a result are ignored.
    beside
        Whether to show published results. Use False for generated data.

    Raises
    ------
    UsageError
        If the layout does not distinguish some rows of the leaderboards.
    """
    if suite.layout is None:
        return _plain(records)
    layout = suite.layout
    published: dict[Place, str] = {}
    metrics: dict[str, list[str]] = defaultdict(list)
    for number in suite.numbers():
        if number.metric not in metrics[number.task]:
            metrics[number.task].append(number.metric)
        if place := _place(layout, _of_number(number)):
            published[place] = number.text
    runs = _runs(layout, records, metrics)
    rows, columns = (_names(axis, published, runs, both=beside) for axis in (0, 1))
    published = published if beside else {}
    texts = [[_cell(runs.get((r, c)), published.get((r, c))) for c in columns] for r in rows]
    return pd.DataFrame(texts, index=pd.Index(rows, name=""), columns=columns)


def _runs(
    layout: Layout, records: Iterable[Record], metrics: Mapping[str, list[str]]
) -> dict[Place, list[float]]:
    """Return the results in each cell of the table; raise if it would average different rows."""
    runs: dict[Place, list[float]] = defaultdict(list)
    rows_of: dict[Place, set[str]] = defaultdict(set)
    for record in (record for record in records if record.status == "ok"):
        wanted = metrics.get(record.task.name) or [record.primary.name]
        for metric in (m for m in record.metrics if m.at == "last" and m.name in wanted):
            if place := _place(layout, _of_record(record, metric.name)):
                runs[place].append(metric.value)
                rows_of[place].add(f"{method_label(record)} in {group_name(record)}")
    for (row, column), names in rows_of.items():
        if len(names) > 1:
            raise UsageError(
                f"The table of the suite would average different rows as ({row}, {column}): "
                f"{', '.join(sorted(names))}. Add what distinguishes them to rows or columns of "
                "[layout] in suite.toml, or use `mixbench report`."
            )
    return runs


def _plain(records: Iterable[Record]) -> pd.DataFrame:
    """Return the table of the primary metric by leaderboard and method."""
    found: list[dict[str, str]] = []
    rows: list[str] = []
    for group in comparison_groups(records):
        values: dict[str, list[float]] = defaultdict(list)
        for record in group:
            if record.status == "ok":
                values[method_label(record)].append(record.primary.value)
        first = representative(group)
        rows.append(f"{title_of(first)}: {first.primary.name}")
        found.append({method: _cell(numbers, None) for method, numbers in values.items()})
    return pd.DataFrame(found, index=pd.Index(rows, name="leaderboard")).fillna("-")


def _names(
    axis: int, published: Iterable[Place], runs: Iterable[Place], *, both: bool
) -> list[str]:
    """Return the headings of rows or columns: first in the publication's order, then others."""
    order = dict.fromkeys(place[axis] for place in (*published, *runs))
    kept = {place[axis] for place in (*(published if both else ()), *runs)}
    return [name for name in order if name in kept]


def _of_number(number: Published) -> Facets:
    """Return the fields that determine the place of a published result in the table."""
    name, _, changed = number.method.rstrip("]").partition("[")
    card = find("method", name)
    given = dict(setting.split("=") for setting in filter(None, changed.split(",")))
    values = parameters_of(card, card.defaults, given)
    facts = {"task": number.task, "model": number.model, "metric": number.metric}
    return {**values, **facts, "method": name}


def _of_record(record: Record, metric: str) -> Facets:
    """Return the fields that determine the place of a measured result in the table."""
    facts = {"task": record.task.name, "model": record.model, "metric": metric}
    return {**record.method.parameters, **facts, "method": record.method.name}


def _place(layout: Layout, facets: Facets) -> Place | None:
    """Return the headings of a result's row and column; None if the table does not have it."""
    if layout.method and facets["method"] != layout.method:
        return None
    if any(name not in facets for name in (*layout.rows, *layout.columns)):
        return None
    row, column = (
        " ".join(filter(None, (_named(layout, name, facets[name]) for name in names)))
        for names in (layout.rows, layout.columns)
    )
    return row, column


def _named(layout: Layout, facet: str, value: ParameterValue) -> str:
    """Return the publication's name for the value of a field."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return layout.names.get(f"{facet}={text}", layout.names.get(text, text))


def _cell(values: list[float] | None, published: str | None) -> str:
    """Format the measured and the published result of a cell."""
    measured = (
        plus_minus(mean(values), stdev(values) if len(values) > 1 else nan) if values else "-"
    )
    return f"{measured} ({published})" if published is not None else measured
