"""From records to leaderboards. Pure: the same records give the same tables.

Records stand in one leaderboard if they answer the same question: same task and version, model,
protocol, recipe and data. A row is a method with its parameters; its runs are paired with those of
the baseline by seed, because runs of one seed see the same weights at the start, the same batches
and the same augmentations.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from scipy.special import stdtrit

from mixbench.declare import BASELINE
from mixbench.records.schema import MetricRecord, Record

LEVEL = 0.95  # of the intervals


@dataclass(frozen=True)
class Leaderboard:
    """One question's answer.

    Attributes
    ----------
    name
        Fit for a file: task.model.protocol, and what else tells it from others.
    rows
        One per method, best first: rank, method, n, mean, deviation, difference, low, high, the
        secondary metrics, images, minutes, extra_parameters, and, if there are any, the published
        numbers with the marks of their sources and what the recipe was tuned to.
    notes
        What a reader must know beside the numbers.
    """

    name: str
    title: str
    facts: tuple[str, ...]
    rows: pd.DataFrame
    notes: tuple[str, ...]
    metric: str
    unit: str
    secondary: tuple[str, ...]


def method_label(record: Record) -> str:
    """Return the method's name with its changed parameters; a plugin file is marked."""
    method = record.method
    changed = ",".join(f"{name}={method.parameters[name]}" for name in method.changed)
    mark = " (file)" if method.source == "file" else ""
    return f"{method.name}[{changed}]{mark}" if changed else f"{method.name}{mark}"


def leaderboards(records: Iterable[Record]) -> list[Leaderboard]:
    """Return one leaderboard for every question that the records answer, by name."""
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[_question(record)].append(record)
    current = [_current(group) for group in groups.values()]
    answered = [group for group in current if any(r.status == "ok" for r in group)]
    return sorted(map(_leaderboard, answered), key=lambda board: board.name)


def _question(record: Record) -> str:
    """Return what must agree for two records to be compared."""
    task = record.task
    parts = [task.name, task.version, task.parameters, record.model, record.protocol]
    parts += [record.recipe, record.data.origin, record.data.digest]
    parts += [record.tuning.grid] if record.tuning else []
    return json.dumps(parts, sort_keys=True)


def _current(group: Iterable[Record]) -> list[Record]:
    """Return the newest record of every method and seed, none of an older code or version.

    Numbers of different code, versions or parameters have no common mean.
    """
    ordered = sorted(group, key=lambda record: record.created)
    newest = {method_label(record): record.method for record in ordered}
    same = [record for record in ordered if record.method == newest[method_label(record)]]
    return list({(method_label(record), record.seed): record for record in same}.values())


def _leaderboard(group: Sequence[Record]) -> Leaderboard:
    """Return the leaderboard of the records of one question, at least one of which is ok."""
    good = [record for record in group if record.status == "ok"]
    first = good[0]
    task, data, primary = first.task, first.data, first.primary
    rows = _rows(runs_of(good), higher_is_better=primary.higher_is_better)
    floors = {m.name: m.value for m in first.metrics if m.at == "last" and m.floor}
    sources = _sources(good)
    if sources:
        rows["published"] = rows["method"].map(_published(good, sources)).fillna("")
    changed = [f"{name}={task.parameters[name]}" for name in task.changed]
    if first.protocol == "custom":
        changed += [f"{name}={first.recipe[name]}" for name in ("epochs", "batch_size", "lr")]
    if first.tuning:
        changed += ["tuned"]
        rows["tuned_to"] = rows["method"].map(_chosen(good))
    origin = [] if data.origin == "official" else [data.origin]
    return Leaderboard(
        name=".".join([task.name, first.model, first.protocol, *origin, *changed]),
        title=f"{task.name} v{task.version}, {first.model}, protocol {first.protocol}",
        facts=(
            ", ".join([" ".join([*origin, "data:", data.name]), data.version, *changed]),
            f"{primary.name} in {primary.unit}, last epoch, {primary.n} test items",
            *_budget(first),
            *(
                f"{name} {value:.2f} without looking at the images"
                for name, value in floors.items()
            ),
        ),
        rows=rows,
        notes=(*_notes(group, rows), *_floor_notes(first, rows, floors), *_source_notes(sources)),
        metric=primary.name,
        unit=primary.unit,
        secondary=tuple(m.name for m in first.metrics if _is_shown(m) and not m.primary),
    )


def _budget(record: Record) -> Iterator[str]:
    """Say what every row was tuned over."""
    if record.tuning:
        tried = ((name, map(str, values)) for name, values in record.tuning.grid.items())
        grid = " x ".join(f"{name} of {', '.join(values)}" for name, values in tried)
        yield (
            f"tuned, every row and seed alike: the best of {record.tuning.trainings} trainings by "
            f"{record.primary.name} on images held out of training ({grid})"
        )


def _chosen(records: Iterable[Record]) -> dict[str, str]:
    """Return what every method was tuned to, by seed where the seeds differ."""
    found: dict[str, dict[int, str]] = defaultdict(dict)
    for record in records:
        assert record.tuning is not None  # it is part of the question
        values = " ".join(f"{name}={value}" for name, value in record.tuning.chosen.items())
        lost = f" ({record.tuning.diverged} diverged)" if record.tuning.diverged else ""
        found[method_label(record)][record.seed] = values + lost
    return {
        method: next(iter(by_seed.values()))
        if len(set(by_seed.values())) == 1
        else "; ".join(f"s{seed}: {by_seed[seed]}" for seed in sorted(by_seed))
        for method, by_seed in found.items()
    }


def runs_of(records: Iterable[Record]) -> pd.DataFrame:
    """Return one row for every run, with the numbers that are ranked or shown."""
    rows = []
    for record in records:
        assert record.cost is not None  # ok records have one
        shown = (m for m in record.metrics if _is_shown(m) and not m.primary)
        last = {m.name: m.value for m in shown}
        rows.append({
            "method": method_label(record),
            "seed": record.seed,
            "value": record.primary.value,
            **last,
            "images": record.cost.images,
            "minutes": record.cost.wall_s_total / 60,
            "extra_parameters": record.cost.extra_parameters,
        })
    return pd.DataFrame(rows)


def _is_shown(metric: MetricRecord) -> bool:
    """Tell whether a metric has a column."""
    return metric.at == "last" and not (metric.floor or metric.detail)


def _rows(runs: pd.DataFrame, *, higher_is_better: bool) -> pd.DataFrame:
    """Return one row per method, best first."""
    means = runs.drop(columns=["seed", "value"]).groupby("method").mean()
    summary = runs.groupby("method")["value"].agg(n="count", mean="mean", deviation="std")
    pairs = pd.DataFrame([_paired(runs, method) for method in summary.index], index=summary.index)
    table = summary.join([pairs, means]).sort_values("mean", ascending=not higher_is_better)
    table.insert(0, "rank", table["mean"].rank(method="min", ascending=not higher_is_better))
    named: pd.DataFrame = table.astype({"rank": int}).rename_axis("method").reset_index()
    return named


def _paired(runs: pd.DataFrame, method: str) -> dict[str, float | None]:
    """Return the mean difference to the baseline over common seeds, and its t interval."""
    values = runs.pivot_table(index="seed", columns="method", values="value")
    nothing: dict[str, float | None] = {"difference": None, "low": None, "high": None}
    if method == BASELINE or BASELINE not in values:
        return nothing
    differences = (values[method] - values[BASELINE]).dropna()
    if differences.empty:
        return nothing
    mean, n = float(differences.mean()), len(differences)
    if n == 1:
        return nothing | {"difference": mean}
    half = float(stdtrit(n - 1, (1 + LEVEL) / 2)) * float(differences.std()) / n**0.5
    return {"difference": mean, "low": mean - half, "high": mean + half}


def _notes(group: Sequence[Record], rows: pd.DataFrame) -> Iterable[str]:
    failed = sorted(f"{method_label(r)} s{r.seed} ({r.status})" for r in group if r.status != "ok")
    if failed:
        yield f"Without a number: {', '.join(failed)}."
    if group[0].data.origin != "official":
        yield f"The data is {group[0].data.origin}: these numbers say nothing about the real task."
    if BASELINE not in set(rows["method"]):
        yield f"No run of `{BASELINE}`, hence no difference to it: run `-m {BASELINE}` as well."
    elif rows["n"].max() > 1:
        yield (
            f"vs {BASELINE}: mean difference of runs with the same seed, and its {LEVEL:.0%} "
            "t interval, not corrected for the number of methods; ± is the deviation over seeds."
        )
    else:
        yield "One seed: nothing can be said about chance. More: --seeds 3."


def _floor_notes(first: Record, rows: pd.DataFrame, floors: Mapping[str, float]) -> Iterator[str]:
    """Name the methods that are worse than what looks at nothing."""
    sign = 1 if first.primary.higher_is_better else -1
    for name, value in floors.items():
        worse = rows["method"][sign * rows["mean"] < sign * value]
        if len(worse):
            yield f"Worse than {name}, which looks at nothing: {', '.join(worse)}."


Source = tuple[str, str, str]  # citation, place in it, remark


def _sources(records: Iterable[Record]) -> list[Source]:
    """Return the publications of numbers for these records, sorted."""
    found = {
        (ref.citation, ref.where, ref.remark)
        for record in records
        for ref in record.references
        if ref.metric == record.primary.name
    }
    return sorted(found)


def _published(records: Iterable[Record], sources: list[Source]) -> dict[str, str]:
    """Return the published numbers of every method, each with the mark of its source."""
    numbers: dict[str, dict[int, float]] = defaultdict(dict)
    for record in records:
        for ref in record.references:
            if ref.metric == record.primary.name:
                mark = sources.index((ref.citation, ref.where, ref.remark)) + 1
                numbers[method_label(record)][mark] = ref.value
    return {
        method: ", ".join(f"{values[mark]:g} [{mark}]" for mark in sorted(values))
        for method, values in numbers.items()
    }


def _source_notes(sources: Sequence[Source]) -> Iterator[str]:
    for mark, (citation, where, remark) in enumerate(sources, 1):
        yield f"[{mark}] {citation}, {where}" + (
            f". {remark[0].upper()}{remark[1:]}." if remark else "."
        )
