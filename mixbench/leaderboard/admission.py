"""Compare records with what their suite, task and method declare.

A suite's cells are planned anew, and every field that follows from them must be in the record. What
a run found is compared with the declarations of its metrics. Nothing here needs predictions.
"""

import json
import re
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mixbench.datasets.locate import SYNTHETIC, data_of, declared_holdout, num_test_items
from mixbench.datasets.survey import pinned_digest
from mixbench.declare import Metric
from mixbench.errors import MixbenchError, UnknownName, one_line
from mixbench.plan.cells import Cell
from mixbench.plan.request import base_values
from mixbench.records.declared import (
    Declared,
    data_named,
    declaration,
    origin_of_cell,
    references,
)
from mixbench.records.schema import MetricRecord, Record, UnitRecord
from mixbench.registry.cards import Card
from mixbench.registry.fingerprint import digest
from mixbench.registry.modules import Kind
from mixbench.registry.parameters import setting_text
from mixbench.registry.units import find
from mixbench.storage.spec import PUBLISHED
from mixbench.storage.strict_model import TIME

CLOSE = 1e-5  # tolerance of means that are computed again, for the rounding of a float32
HIGHEST = 1e9  # of a metric without a limit, so that means and squares are finite
CLOCKS_DIFFER = timedelta(days=1)
BUILTIN = "builtin"
KEY = re.compile(r"[0-9a-f]{8}")
CLASSES = "classes"  # parameter of tasks: the number of classes, of which some may be left out


class Wrong(NamedTuple):
    """What is wrong with a field of a record."""

    field: str
    what: str


class Question(NamedTuple):
    """What a cell asks, without its method: the rows of a table answer the same question."""

    task: str
    base_task: str
    model: str
    protocol: str
    recipe: str
    tuned: str
    seed: int


@dataclass(frozen=True)
class Asked:
    """The cells that a suite asks for.

    Attributes
    ----------
    cells
        The cells, planned with the installed methods and tasks.
    """

    cells: tuple[Cell, ...]

    @cached_property
    def _answers(self) -> dict[tuple[Question, str], Cell]:
        every = ((cell, Declared.of(cell)) for cell in self.cells)
        return {(_question(one), _unit(one.method)): cell for cell, one in every}

    @cached_property
    def _questions(self) -> dict[Question, Cell]:
        """A cell of each question; the seed of a method that is not asked for must be asked."""
        return {question: cell for (question, _), cell in self._answers.items()}

    def cell_of(self, record: Record) -> Cell | None:
        """Return the cell that a record answers; None if the suite does not ask for it."""
        return self._answers.get((_question(record), _unit(record.method)))

    def beside(self, record: Record) -> Cell | None:
        """Return a cell that differs from the record only in its method; None if there is none."""
        return self._questions.get(_question(record))

    def identity(self, record: Record) -> Hashable:
        """Return what only one record may have: its question and its method."""
        return _question(record), _unit(record.method, changed=False)

    def table(self, record: Record) -> tuple[Hashable, str]:
        """Return what the rows of one table have in common: their question and data."""
        return _question(record)._replace(seed=0), record.data.digest

    def row(self, record: Record) -> Hashable:
        """Return what the runs of one row have in common: all but the seed."""
        return _question(record)._replace(seed=0), _unit(record.method), record.data.digest

    def objections(self, record: Record) -> Iterator[Wrong]:
        """Yield why a record belongs neither to the suite's rows nor beside them."""
        wanted = _question(record)
        left = [*self._questions]
        for field in Question._fields:
            value, known = getattr(wanted, field), [getattr(one, field) for one in left]
            if value not in known:
                said = one_line(_apart(value, known[0]), 300)
                yield Wrong(field, f"no [[ask]] of the suite includes this: {said}")
                return
            left = [one for one in left if getattr(one, field) == value]

    def as_declared(self, record: Record) -> Record:
        """Return a record with all that follows from the declarations of its cell.

        Built-in methods and tasks have versions, which say whether results can be compared; the
        digest of their code is that of the installed one, so that it cannot separate rows.
        """
        cell = self.cell_of(record) or self.beside(record)
        if cell is None:
            return record
        declared, method, published = Declared.of(cell), record.method, []
        if self.cell_of(record):
            method, published = declared.method, references(cell, record.data.origin)
        elif method.source == BUILTIN:
            method = method.model_copy(update={"code": _code(method)})
        changes = {"task": declared.task, "base_task": declared.base_task, "method": method}
        return record.model_copy(update={**changes, "references": published})


def _question(one: Record | Declared) -> Question:
    tuned = one.tuning if isinstance(one, Record) else None
    grid = one.grid if isinstance(one, Declared) else tuned and tuned.grid
    base = _unit(one.base_task, "task") if one.base_task else "no base task"
    return Question(
        task=_unit(one.task, "task"),
        base_task=base,
        model=one.model,
        protocol=one.protocol,
        recipe=json.dumps({**one.recipe, **one.pretraining}, sort_keys=True),
        tuned=json.dumps(grid, sort_keys=True) if grid else "not tuned",
        seed=one.seed,
    )


def _apart(value: object, known: object) -> str:
    """Return how a part of a question differs from one that is asked."""
    try:
        found, asked = json.loads(str(value)), json.loads(str(known))
    except ValueError:
        return f"{value}, unlike {known}"
    if not (isinstance(found, dict) and isinstance(asked, dict)):
        return f"{value}, unlike {known}"
    names = sorted(found.keys() | asked.keys())
    other = [name for name in names if found.get(name) != asked.get(name)]
    return ", ".join(f"{name}={found.get(name)}, unlike {asked.get(name)}" for name in other)


def _unit(unit: UnitRecord, kind: Kind = "method", *, changed: bool = True) -> str:
    """Return what identifies a method or task: all but its code, which its version stands for.

    A parameter that is newer than the record has its default, as the code of the record had no
    other value.
    """
    parameters = dict(unit.parameters)
    if unit.source == BUILTIN and (card := _installed(kind, unit)):
        parameters = {**card.defaults, **parameters}
    origin = unit.distribution or unit.source
    names = f", changed: {', '.join(unit.changed)}" if changed and unit.changed else ""
    values = json.dumps(parameters, sort_keys=True)
    return f"{unit.name} v{unit.version} ({origin}) {values}{names}"


def _installed(kind: Kind, unit: UnitRecord) -> Card | None:
    """Return the card of a built-in method or task; never reads a file that a record names."""
    try:
        return find(kind, unit.name)
    except MixbenchError:
        return None


def _code(unit: UnitRecord) -> str:
    card = _installed("method", unit)
    return digest(card.path) if card else unit.code


def older_code(record: Record) -> bool:
    """Return whether built-in code has changed since, without a new version."""
    units: tuple[tuple[Kind, UnitRecord], ...] = ("method", record.method), ("task", record.task)
    cards = ((_installed(kind, unit), unit) for kind, unit in units if unit.source == BUILTIN)
    return any(card is not None and digest(card.path) != unit.code for card, unit in cards)


def objections(asked: Asked, record: Record) -> Iterator[Wrong]:
    """Yield what is wrong with a record, compared with what is declared.

    Parameters
    ----------
    asked
        Cells of the suite.
    record
        Record of one of its cells, or of another method beside them.
    """
    changed = [*_versions(record)]
    yield from changed
    cell = asked.cell_of(record) or asked.beside(record)
    if cell is None:
        yield from () if changed else asked.objections(record)
        return
    if record.rescored is not None:
        yield Wrong("rescored", "must be null: a suite has one record of each cell")
    if asked.cell_of(record) is None:
        yield from _unasked(cell, record)
    name, _, key = record.cell.rpartition("/")
    if name != (expected := _label(cell, record)) or not KEY.fullmatch(key):
        yield Wrong("cell", f"must be {expected}/ and eight digits of its key (got {record.cell})")
    yield from _data(cell, record)
    yield from _dates(record)
    if record.status == "ok":
        yield from _metrics(cell, record)


def file_name(asked: Asked, record: Record) -> Path:
    """Return the path that a record must have in the suite's folder of records."""
    cell = asked.cell_of(record) or asked.beside(record)
    protocol = cell.protocol if cell else record.protocol
    key = record.cell.rpartition("/")[2]
    name = f"{record.model}.{protocol}.s{record.seed}.{key}.json"
    return Path(record.task.name, record.method.name, name)


def _label(cell: Cell, record: Record) -> str:
    """Return the name of a record's cell without its key."""
    method = record.method
    values = ",".join(f"{n}={setting_text(method.parameters[n])}" for n in method.changed)
    label = f"{method.name}[{values}]" if values else method.name
    return f"{cell.task.label}/{label}/{cell.model}/s{cell.seed}"


def _versions(record: Record) -> Iterator[Wrong]:
    """Yield where a built-in method or task differs from the installed version."""
    units: list[tuple[str, Kind, UnitRecord]]
    units = [("method", "method", record.method), ("task", "task", record.task)]
    if record.base_task:
        units.append(("base_task", "task", record.base_task))
    for field, kind, unit in units:
        if unit.source != BUILTIN:
            continue
        try:
            card = find(kind, unit.name)
        except UnknownName as error:
            yield Wrong(f"{field}.name", str(error))
            continue
        if card.version != unit.version:
            yield Wrong(
                f"{field}.version",
                f"must be {card.version}, the current version of {unit.name} (got {unit.version}); "
                "run the cell again",
            )
        if unknown := sorted(unit.parameters.keys() - card.defaults.keys()):
            yield Wrong(f"{field}.parameters", f"{unit.name} has no parameter {', '.join(unknown)}")


def outdated(record: Record) -> bool:
    """Return whether the method or task of a record has another version now."""
    return any(field.endswith(".version") for field, _ in _versions(record))


def _unasked(cell: Cell, record: Record) -> Iterator[Wrong]:
    """Yield what is wrong with the method of a row that the suite does not ask for."""
    method = record.method
    card = _installed("method", method) if method.source == BUILTIN else None
    if card is None:
        if len({*method.changed}) < len(method.changed):
            yield Wrong("method.changed", "must have different names")
        return
    usual = base_values(card, cell.protocol)
    changed = [n for n in usual if n in method.parameters and method.parameters[n] != usual[n]]
    if changed != method.changed:
        expected = ", ".join(changed) or "empty"
        yield Wrong("method.changed", f"must be {expected}: these differ from the protocol's")


def _data(cell: Cell, record: Record) -> Iterator[Wrong]:
    data, generated = record.data, origin_of_cell(cell) == SYNTHETIC
    if (data.name, data.version) != (known := data_named(cell)):
        yield Wrong("data", f"must be {' '.join(known)} (got {data.name} {data.version})")
    allowed = (SYNTHETIC,) if generated else (*sorted(PUBLISHED), "re-encoded")
    if data.origin not in allowed:
        yield Wrong("data.origin", f"must be {' or '.join(allowed)} (got {data.origin})")
    pinned = pinned_digest(data_of(cell.task.card, cell.task.parameters))
    if data.origin == "official" and pinned and data.digest != pinned:
        yield Wrong("data.digest", f"must be {pinned} for official data (got {data.digest})")


def _dates(record: Record) -> Iterator[Wrong]:
    latest = (datetime.now(UTC) + CLOCKS_DIFFER).strftime(TIME)
    times = {"created": record.created}
    for number, stage in enumerate(record.stages):
        times |= {f"stages.{number}.started": stage.started, f"stages.{number}.ended": stage.ended}
    for field, time in times.items():
        if time > latest:
            yield Wrong(field, f"is in the future ({time})")


def _metrics(cell: Cell, record: Record) -> Iterator[Wrong]:
    declared = {metric.name: metric for metric in _declared_metrics(cell)}
    last = {metric.name for metric in record.metrics if metric.at == "last"}
    if missing := sorted(declared.keys() - last):
        yield Wrong("metrics", f"has no {', '.join(missing)} after the last epoch")
    number = _test_items(cell, record)
    for place, metric in enumerate(record.metrics):
        field = f"metrics.{place}"
        if metric.name not in declared:
            yield Wrong(f"{field}.name", f"{record.task.name} has no metric {metric.name}")
            continue
        yield from _metric(field, metric, declared[metric.name])
        if metric.n != number:
            yield Wrong(f"{field}.n", f"must be {number} test items (got {metric.n})")
    yield from _held_out(cell, record)


def _declared_metrics(cell: Cell) -> Sequence[Metric]:
    """Return the metrics of a task, which its parameters may determine.

    Only built-in tasks are loaded: the file of another may have come with a record.
    """
    card = cell.task.card
    if card.source != BUILTIN or not (cell.task.changed or cell.base):
        return card.declared.metrics
    from mixbench.contract.loading import make_task  # imports torch

    base = cell.base.task.parameters if cell.base else None
    return make_task(card, cell.task.parameters, base).metrics


def _held_out(cell: Cell, record: Record) -> Iterator[Wrong]:
    """Yield how the fraction of held-out images differs, which older records lack."""
    trained = cell.base or cell
    share = declared_holdout(trained.task.card, trained.task.parameters)
    share = 0.0 if trained.recipe.final_on == "all" else share
    found = record.held_out
    if found is not None and share is not None and abs(found - share) > CLOSE:
        yield Wrong("held_out", f"must be {share:g} (got {found:g})")


def _test_items(cell: Cell, record: Record) -> int:
    """Return the published number of test items; that of the record if it is not known.

    Those of some classes of a data set are not published; `Evidence` compares them with the rest of
    the table.
    """
    published = num_test_items(cell.task.card, cell.task.parameters)
    units = [cell.task, *([cell.base.task] if cell.base else [])]
    whole = all(u.parameters.get(CLASSES) == u.card.defaults.get(CLASSES) for u in units)
    known = published and whole and record.data.origin in {*PUBLISHED, "re-encoded"}
    return published if known else record.primary.n


def _metric(field: str, metric: MetricRecord, declared: Metric) -> Iterator[Wrong]:
    for name, value in declaration(declared).items():
        if (found := getattr(metric, name)) != value:
            yield Wrong(f"{field}.{name}", f"must be {value} for {metric.name} (got {found})")
    values = {"value": metric.value}
    values |= {f"by_class.{k}": v for k, v in (metric.by_class or {}).items() if v is not None}
    highest = min(declared.highest_value, HIGHEST)
    for name, value in values.items():
        if not 0 <= value <= highest:
            limits = f"between 0 and {highest:g}"
            yield Wrong(f"{field}.{name}", f"{metric.name} must be {limits} (got {value:g})")
    if metric.items is not None:
        yield from _items(field, metric, declared)


def _items(field: str, metric: MetricRecord, declared: Metric) -> Iterator[Wrong]:
    """Yield where the scores of the items contradict the metric that is their mean."""
    if not (metric.primary and metric.at == "last") or metric.items is None:
        yield Wrong(f"{field}.items", "only the primary metric after the last epoch has items")
        return
    try:
        scores = metric.items.scores
    except ValueError as error:
        yield Wrong(f"{field}.items", str(error))
        return
    if len(scores) != metric.n:
        yield Wrong(f"{field}.items", f"has {len(scores)} per-item scores, but n is {metric.n}")
        return
    if not (scores >= 0).all() or not (scores <= declared.highest_value).all():
        yield Wrong(f"{field}.items", f"must be between 0 and {declared.highest_value:g}")
    expected = {"value": float(scores.mean())}
    if metric.stderr is not None and len(scores) > 1:
        expected["stderr"] = float(scores.std(ddof=1) / len(scores) ** 0.5)
    for name, value in expected.items():
        if not same_number(getattr(metric, name), value):
            found = getattr(metric, name)
            yield Wrong(f"{field}.{name}", f"its items give {value:.6g} (got {found:.6g})")


def same_number(one: float | None, other: float | None, tolerance: float = CLOSE) -> bool:
    """Return whether two numbers are equal up to a tolerance, both relative and absolute."""
    if one is None or other is None:
        return one is other
    return bool(np.isclose(one, other, rtol=tolerance, atol=tolerance))
