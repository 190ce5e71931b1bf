"""The parts of a record that follow from what is declared, whatever a run found.

The writer fills them in, and verification compares them: what the program can know, it does not
take from a record.
"""

from dataclasses import dataclass
from typing import Any, get_args

from mixbench.datasets.locate import SYNTHETIC, data_of
from mixbench.declare import Metric
from mixbench.declare.facts import ParameterValue
from mixbench.errors import one_line
from mixbench.plan.cells import Cell, Unit
from mixbench.records.schema import MetricRecord, ReferenceRecord, UnitRecord
from mixbench.registry.cards import Card
from mixbench.registry.fingerprint import digest
from mixbench.registry.units import find
from mixbench.storage.spec import PUBLISHED, Origin
from mixbench.storage.strict_model import LONGEST


@dataclass(frozen=True)
class Declared:
    """What a cell determines of its record; see `mixbench.records.schema.Record`."""

    label: str
    method: UnitRecord
    task: UnitRecord
    base_task: UnitRecord | None
    model: str
    protocol: str
    recipe: dict[str, Any]
    pretraining: dict[str, str]
    grid: dict[str, list[Any]] | None
    seed: int

    @classmethod
    def of(cls, cell: Cell) -> "Declared":
        """Return what a cell determines of its record."""
        return cls(
            label=one_line(cell.label),
            method=unit_record(cell.method),
            task=unit_record(cell.task),
            base_task=unit_record(cell.base.task) if cell.base is not None else None,
            model=cell.model,
            protocol="custom" if cell.custom else cell.protocol,
            recipe=cell.recipe.values(),
            pretraining={name: one_line(text) for name, text in cell.pretraining.items()},
            grid={name: list(values) for name, values in cell.grid.items()} or None,
            seed=cell.seed,
        )


def unit_record(unit: Unit[Card]) -> UnitRecord:
    """Return a method or task of a cell as it is recorded."""
    return UnitRecord(
        name=unit.card.name,
        version=unit.card.version,
        parameters={n: _line(value) for n, value in unit.stated.items()},
        changed=unit.changed,
        source=unit.card.source,
        code=digest(unit.card.path),
        distribution=unit.card.distribution,
    )


def _line(value: ParameterValue) -> ParameterValue:
    """Return a value as it can be recorded; paths may have any characters."""
    return one_line(value, LONGEST) if isinstance(value, str) else value


def declaration(metric: Metric | MetricRecord) -> dict[str, Any]:
    """Return the fields of a metric record that the task's declaration determines."""
    names = ("name", "unit", "higher_is_better", "primary", "trivial_baseline", "detail")
    return {name: getattr(metric, name) for name in names}


def references(cell: Cell, origin: Origin) -> list[ReferenceRecord]:
    """Return the published results for a cell, if it uses their recipe on the official data."""
    wanted = (cell.method.card.name, cell.model, cell.protocol)
    changed = cell.custom or cell.grid or cell.task.changed or cell.pretraining
    if changed or origin not in PUBLISHED:
        return []
    return [
        ReferenceRecord(
            metric=ref.metric,
            value=ref.value,
            std=ref.std,
            num_seeds=ref.num_seeds,
            citation=ref.citation,
            where=ref.where,
            remark=ref.remark,
        )
        for ref in cell.task.card.declared.references
        if (ref.method, ref.model, ref.protocol) == wanted
    ]


def data_named(cell: Cell) -> tuple[str, str]:
    """Return the name and the version of a cell's data as they are recorded."""
    data = data_of(cell.task.card, cell.task.parameters)
    folder = cell.data.folder if data.own else None
    return (one_line(folder.name) if folder else data.name), data.version


def origin_of_cell(cell: Cell) -> Origin:
    """Return where a cell's data is from: the worst of what its model was trained and tested on.

    Of data that models of other tasks were trained on, it is known whether it was generated.
    """
    origins = [one.data.origin for one in (cell, cell.trained_by) if one is not None]
    for need in cell.pretrained_by:
        generates = find("task", need.task).declared.synthetic.protocols
        if need.data == SYNTHETIC or (not need.data and cell.protocol in generates):
            origins.append(SYNTHETIC)
    return max(origins, key=get_args(Origin).index)
