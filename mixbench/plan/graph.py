"""Turns cells into a graph of stages, without access to the clock, a device or the store.

A stage's key is a hash of everything that determines its result and of nothing else. Cells that
need the same computation share one stage.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from mixbench.datasets.locate import path_state
from mixbench.datasets.survey import DataPart
from mixbench.plan.cells import Cell, Unit
from mixbench.plan.request import Frames, as_trained, needed, on_all, on_held_in
from mixbench.plan.tuning import candidates
from mixbench.registry.cards import Card
from mixbench.registry.fingerprint import combine, fingerprint
from mixbench.registry.units import find
from mixbench.storage.spec import (
    TUNED,
    Identity,
    Paths,
    Role,
    RunIdentity,
    Stage,
    StageKind,
    UnitIdentity,
)

KEY_VERSION = 2
Part = TypeVar("Part")

# The modules that, with the method, the task and their imports, determine a stage's result.
WORK: dict[StageKind, tuple[str, ...]] = {
    "data": (),
    "prepare": ("mixbench.train.loop",),
    "train": ("mixbench.train.loop",),
    "tune": ("mixbench.worker.tuning",),
    "evaluate": ("mixbench.train.evaluation", "mixbench.train.features"),
}


def part_read(kind: StageKind) -> DataPart:
    """Return the part of the data that a kind of stage reads."""
    return "test" if kind == "evaluate" else "train"


@dataclass(frozen=True)
class Plan:
    """The cells of a run, with all stages that they need.

    Attributes
    ----------
    cells
        Cells of the plan, in the order in which they were requested.
    chains
        Keys of each cell's own stages, in order; the last one is its evaluation.
    stages
        Every stage by key, once, and after all of its inputs.
    """

    cells: tuple[Cell, ...]
    chains: tuple[tuple[str, ...], ...]
    stages: Mapping[str, Stage]

    def rests_on(self, key: str) -> list[str]:
        """Return the keys of a stage and of all stages that it depends on, inputs first."""
        found: dict[str, None] = {}
        for other in self.stages[key].inputs.values():
            found |= dict.fromkeys(self.rests_on(other))
        return [*found, key]


def plan(cells: Iterable[Cell], *, without_data: bool = False) -> Plan:
    """Return the plan with the stages of all cells; cells share equal stages.

    Parameters
    ----------
    cells
        The cells.
    without_data
        Whether the data of the tasks whose models the cells start from may be missing.
    """
    cells = tuple(cells)
    planned = _Planned({}, {}, without_data, {})
    return Plan(cells, tuple(_chain(cell, planned) for cell in cells), planned.stages)


class _Planned(NamedTuple):
    """The stages that are planned so far, the tasks of needed cells, and what may be missing.

    Attributes
    ----------
    parts
        Parts of stages, by their text: 10,000 cells would need ten times the memory if equal parts
        were stored more than once.
    """

    stages: dict[str, Stage]
    frames: Frames
    without_data: bool
    parts: dict[str, Any]

    def add(self, kind: StageKind, cell: Cell, inputs: Mapping[str, str], label: str) -> str:
        """Add one stage of a cell, with only what determines its result; return its key."""
        units: dict[Role, Unit[Card]] = {"task": cell.task}
        if kind != "data":
            units["method"] = cell.method
        if cell.base is not None:
            units["base_task"] = cell.base.task
        identities = {role: self._once(_identity(unit)) for role, unit in units.items()}
        code, combined = code_of(kind, tuple(unit.card for unit in units.values()))
        run = None
        if kind != "data":
            run = RunIdentity(
                method=identities["method"],
                model=cell.model,
                recipe=self._once(cell.recipe),
                seed=cell.seed,
                data_digest=cell.data.parts.get(part_read(kind), ""),
            )
        identity = Identity(
            key_version=KEY_VERSION,
            kind=kind,
            task=identities["task"],
            inputs=dict(inputs),
            code=combined,
            base_task=identities.get("base_task"),
            run=run,
        )
        paths = Paths(
            data=str(cell.data.folder) if cell.data.folder else None,
            data_states=dict(cell.data.states),
            model_file=cell.model_file,
            unit_files={r: str(u.card.path) for r, u in units.items() if u.card.source == "file"},
            replaced_parameters={r: unit.replaced for r, unit in units.items() if unit.replaced},
            file_states={
                path: path_state(Path(path))
                for unit in units.values()
                for path in unit.files.values()
            },
        )
        epochs = cell.recipe.epochs if kind == "train" else 0
        stage = Stage(label, identity, code, self._once(paths), epochs)
        self.stages.setdefault(stage.key, stage)
        return stage.key

    def _once(self, part: Part) -> Part:
        """Return an equal part of an earlier stage if there is one, else this one."""
        found: Part = self.parts.setdefault(repr(part), part)
        return found


def _chain(cell: Cell, planned: _Planned) -> tuple[str, ...]:
    """Add the stages that a cell needs, and return the keys of its own stages."""
    if cell.base is not None:
        return _evaluation_chain(cell, cell.base, planned)
    chain = _training_chain(cell, planned)
    inputs = {"train": chain[-1]}
    if cell.data.folder is None:
        inputs["data"] = chain[0]
    return (*chain, planned.add("evaluate", as_trained(cell), inputs, cell.label))


def _evaluation_chain(cell: Cell, base: Cell, planned: _Planned) -> tuple[str, ...]:
    """Add the stages of a cell that evaluates its base task's model; return its own keys."""
    inputs, chain = {}, []
    if cell.trained_by is not None:
        inputs["train"] = _training_chain(base, planned)[-1]
    if cell.data.folder is None:
        owner = cell if cell.has_own_data else base
        inputs["data"] = planned.add("data", owner, {}, owner.task.label)
        chain.append(inputs["data"])
    return (*chain, planned.add("evaluate", cell, inputs, cell.label))


def _training_chain(cell: Cell, planned: _Planned, which: str = "") -> tuple[str, ...]:
    """Add the cell's stages up to its trained model, and return their keys.

    Parameters
    ----------
    which
        Suffix of the stages' labels that distinguishes the candidates of a grid search.
    """
    if cell.grid:
        return _tuning_chain(cell, planned)
    inputs = {
        role: _training_chain(other, planned)[-1]
        for role, other in needed(cell, planned.frames, without_data=planned.without_data).items()
    }
    chain = []
    if cell.data.folder is None:
        inputs["data"] = planned.add("data", cell, {}, cell.task.label)
        chain.append(inputs["data"])
    own = on_held_in(as_trained(cell))
    if "prepare" in own.method.card.defines:
        inputs["prepare"] = planned.add("prepare", own, inputs, cell.label + which)
        chain.append(inputs["prepare"])
    if cell.recipe.final_on == "all":
        own = on_all(own)
    return (*chain, planned.add("train", own, inputs, cell.label + which))


def _tuning_chain(cell: Cell, planned: _Planned) -> tuple[str, ...]:
    """Add the trainings of all candidates and the stage that selects one; return their keys.

    The last stage trains on all images with the chosen recipe, if the cell asks for it.
    """
    inputs: dict[str, str] = {}
    chain: dict[str, None] = {}
    tuned = on_held_in(cell)
    for name, recipe in candidates(tuned.recipe, cell.grid).items():
        candidate = _training_chain(replace(tuned, recipe=recipe, grid={}), planned, f"/{name}")
        chain |= dict.fromkeys(candidate)
        inputs[name] = candidate[-1]
    found = planned.add("tune", as_trained(tuned), inputs, cell.label)
    if cell.recipe.final_on == "train":
        return (*chain, found)
    # The stage takes the recipe, and what a search found, from the chosen candidate.
    needs = planned.stages[next(iter(inputs.values()))].inputs
    started = {role: key for role, key in needs.items() if role in cell.task.card.declared.needs}
    started |= {"data": needs["data"]} if "data" in needs else {}
    own = on_all(as_trained(tuned))
    final = planned.add("train", own, {**started, TUNED: found}, cell.label)
    return (*chain, found, final)


@cache
def code_of(kind: StageKind, units: tuple[Card, ...]) -> tuple[dict[str, str], str]:
    """Return the digests of the modules that determine a stage's result, and one of them all."""
    code = fingerprint(WORK[kind], units, alone=("mixbench.worker.stages",))
    return code, combine(code)


def card_of(stage: Stage, role: Role) -> Card:
    """Return the card of a stage's method or task."""
    name = stage.paths.unit_files.get(role, stage.identity.units[role].name)
    return find("method" if role == "method" else "task", name)


def _identity(unit: Unit[Card]) -> UnitIdentity:
    return UnitIdentity(unit.card.name, unit.card.version, unit.identifying_parameters)
