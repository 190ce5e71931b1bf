"""From cells to the stages that answer them. Pure: no clock, no device, no store.

A stage's key is a hash of everything that decides its result and of nothing else, so equal work
has one key, wherever it is asked for.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Literal

from mixbench.plan.cells import Cell
from mixbench.plan.request import as_trained, needed
from mixbench.plan.tuning import candidates
from mixbench.registry.cards import Card
from mixbench.registry.fingerprint import combine, fingerprint

StageKind = Literal["data", "prepare", "train", "tune", "evaluate"]
KEY_VERSION = 1

# The module that does a stage's work; with the units and all they import, it decides the result.
WORK: dict[StageKind, tuple[str, ...]] = {
    "data": (),
    "prepare": ("mixbench.stages.training",),
    "train": ("mixbench.stages.training",),
    "tune": ("mixbench.stages.tuning",),
    "evaluate": ("mixbench.stages.evaluation",),
}


@dataclass(frozen=True)
class Stage:
    """One computation with named inputs, in a process of its own.

    Attributes
    ----------
    identity
        Everything that decides the result, the inputs' keys and the code's digest included.
    code
        Digest by module, to say later which one changed.
    places
        Paths that the process needs and that do not decide the result.
    num_epochs
        Of training, for the estimate of the time; 0 where there is none.
    """

    kind: StageKind
    label: str
    identity: Mapping[str, Any]
    inputs: Mapping[str, str]
    code: Mapping[str, str]
    places: Mapping[str, str]
    num_epochs: int = 0

    @cached_property
    def key(self) -> str:
        """A digest of the identity."""
        text = json.dumps(self.identity, sort_keys=True, separators=(",", ":"))
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    @cached_property
    def common(self) -> str:
        """What trainings that may share a process have in common; of another stage, its key."""
        if self.kind != "train":
            return self.key
        names = ("task", "subject", "model", "recipe")
        parts = {name: self.identity.get(name) for name in names}
        data = self.inputs.get("data", self.places.get("data"))
        return json.dumps([parts, data], sort_keys=True)


@dataclass(frozen=True)
class Plan:
    """Every cell with its stages' keys in order, and every stage once.

    Attributes
    ----------
    stages
        By key, each after all its inputs.
    chains
        For each cell, the keys of its own stages, the evaluation last.
    """

    cells: tuple[Cell, ...]
    chains: tuple[tuple[str, ...], ...]
    stages: Mapping[str, Stage]

    def rests_on(self, key: str) -> list[str]:
        """Return a stage and every stage that it rests on, inputs first, each once."""
        found: dict[str, None] = {}
        for other in self.stages[key].inputs.values():
            found |= dict.fromkeys(self.rests_on(other))
        return [*found, key]


def plan(cells: Iterable[Cell]) -> Plan:
    """Return the stages of the cells, shared ones once."""
    cells = tuple(cells)
    stages: dict[str, Stage] = {}
    return Plan(cells, tuple(_chain(cell, stages) for cell in cells), stages)


def _chain(cell: Cell, stages: dict[str, Stage]) -> tuple[str, ...]:
    """Add the cell's stages and those it starts from; return the keys of its own."""
    if cell.subject is not None:
        return _evaluation_chain(cell, cell.subject, stages)
    chain = _training_chain(cell, stages)
    inputs = {"train": chain[-1]}
    if cell.data.folder is None:
        inputs["data"] = chain[0]
    return (*chain, _add(_stage("evaluate", as_trained(cell), inputs, cell.label), stages))


def _evaluation_chain(cell: Cell, subject: Cell, stages: dict[str, Stage]) -> tuple[str, ...]:
    """Add the stages of a cell that evaluates another's model; return the keys of its own."""
    inputs, chain = {}, []
    if cell.trained_by is not None:
        inputs["train"] = _training_chain(subject, stages)[-1]
    if cell.data.folder is None:
        owner = cell if cell.has_own_data else subject
        inputs["data"] = _add(_stage("data", owner, {}, owner.task.label), stages)
        chain.append(inputs["data"])
    return (*chain, _add(_stage("evaluate", cell, inputs, cell.label), stages))


def _training_chain(cell: Cell, stages: dict[str, Stage], which: str = "") -> tuple[str, ...]:
    """Add the cell's stages up to its trained model; return their keys.

    Parameters
    ----------
    which
        Of several trainings of the cell, for its label.
    """
    if cell.grid:
        return _tuning_chain(cell, stages)
    inputs = {role: _training_chain(other, stages)[-1] for role, other in needed(cell).items()}
    chain = []
    if cell.data.folder is None:
        inputs["data"] = _add(_stage("data", cell, {}, cell.task.label), stages)
        chain.append(inputs["data"])
    own = as_trained(cell)
    if "prepare" in own.method.card.defines:
        inputs["prepare"] = _add(_stage("prepare", own, inputs, cell.label + which), stages)
        chain.append(inputs["prepare"])
    return (*chain, _add(_stage("train", own, inputs, cell.label + which), stages))


def _tuning_chain(cell: Cell, stages: dict[str, Stage]) -> tuple[str, ...]:
    """Add the trainings of all candidates and the choice among them; return their keys."""
    inputs: dict[str, str] = {}
    chain: dict[str, None] = {}
    for name, recipe in candidates(cell.recipe, cell.grid).items():
        candidate = _training_chain(replace(cell, recipe=recipe, grid={}), stages, f"/{name}")
        chain |= dict.fromkeys(candidate)
        inputs[name] = candidate[-1]
    return (*chain, _add(_stage("tune", as_trained(cell), inputs, cell.label), stages))


def _add(stage: Stage, stages: dict[str, Stage]) -> str:
    stages.setdefault(stage.key, stage)
    return stage.key


def code_of(kind: StageKind, units: tuple[Card, ...]) -> dict[str, str]:
    """Return the digest, by module, of the code that decides a stage's result."""
    return fingerprint(WORK[kind], units, alone=("mixbench.stages.work",))


def _stage(kind: StageKind, cell: Cell, inputs: Mapping[str, str], label: str) -> Stage:
    """Return one stage of a cell, with only what decides its result in its identity."""
    units = {"task": cell.task, "method": cell.method}
    if kind == "data":
        del units["method"]
    if cell.subject is not None:
        units["subject"] = cell.subject.task
    code = code_of(kind, tuple(unit.card for unit in units.values()))
    identity: dict[str, Any] = {
        "key_version": KEY_VERSION,
        "kind": kind,
        **{role: unit.identity for role, unit in units.items()},
        "inputs": dict(inputs),
        "code": combine(code),
    }
    if kind != "data":
        identity |= {
            "model": cell.model,
            "recipe": asdict(cell.recipe),
            "seed": cell.seed,
            "data": {"origin": cell.data.origin, "digest": cell.data.digest},
        }
    places: dict[str, str] = {
        role: str(unit.card.path) for role, unit in units.items() if unit.card.source == "file"
    }
    for role, unit in units.items():
        places |= {f"{role}.{name}": path for name, path in unit.files.items()}
    if cell.data.folder:
        places["data"] = str(cell.data.folder)
    epochs = cell.recipe.epochs if kind == "train" else 0
    return Stage(kind, label, identity, dict(inputs), code, places, epochs)
