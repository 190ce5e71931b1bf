"""From what is asked to what will be run. Pure: no clock, no device, no store.

A cell is method x task x model x seed x protocol; it is a few stages. A stage's key is a hash of
everything that decides its result and of nothing else, so equal work has one key, wherever it is
asked for.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

from mixbench import registry
from mixbench.cards import Card
from mixbench.data import SYNTHETIC, DataSource, locate
from mixbench.declare import Need, Recipe
from mixbench.errors import UnknownName, UsageError
from mixbench.fingerprint import combine, fingerprint
from mixbench.parameters import Setting, given_to, parameters_of, task_settings

StageKind = Literal["data", "prepare", "train", "evaluate"]
KEY_VERSION = 1

# The module that does a stage's work; with the units and all they import, it decides the result.
WORK: dict[StageKind, tuple[str, ...]] = {
    "data": (),
    "prepare": ("mixbench.training",),
    "train": ("mixbench.training",),
    "evaluate": ("mixbench.evaluation",),
}


@dataclass(frozen=True)
class Unit:
    """A method or task with the values of its parameters."""

    card: Card
    parameters: Mapping[str, Any]

    @property
    def identity(self) -> dict[str, Any]:
        """What decides results beside the file itself, which is in the code's digest."""
        return {
            "name": self.card.name,
            "version": self.card.version,
            "parameters": dict(self.parameters),
        }

    @property
    def label(self) -> str:
        """The name, with the parameters that differ from their defaults."""
        defaults = self.card.defaults
        changed = [f"{k}={v}" for k, v in self.parameters.items() if v != defaults[k]]
        return f"{self.card.name}[{','.join(changed)}]" if changed else self.card.name


@dataclass(frozen=True)
class Cell:
    """One method on one task with one model, protocol and seed."""

    method: Unit
    task: Unit
    model: str
    protocol: str
    recipe: Recipe
    seed: int
    data: DataSource

    @property
    def label(self) -> str:
        """How the cell is called in what people read."""
        return f"{self.task.label}/{self.method.label}/{self.model}/s{self.seed}"


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


@dataclass(frozen=True)
class Request:
    """What the user asked for, as names and texts."""

    methods: Sequence[str]
    tasks: Sequence[str]
    seeds: Sequence[int]
    model: str | None = None
    protocol: str | None = None
    data: str | None = None
    settings: Sequence[Setting] = ()


def cells_of(request: Request) -> list[Cell]:
    """Return every cell asked for, seeds slowest, so that a plan cut short is still balanced.

    Raises
    ------
    UnknownName
        If a method, task, model, protocol or parameter does not exist.
    UsageError
        If a setting names a unit that does not take part.
    """
    methods = [registry.find("method", name) for name in dict.fromkeys(request.methods)]
    tasks = [registry.find("task", name) for name in dict.fromkeys(request.tasks)]
    known = {card.name for card in [*methods, *tasks]}
    for setting in request.settings:
        if setting.unit not in known:
            raise UsageError(
                f"--set {setting.unit}.{setting.parameter}: {setting.unit!r} takes no part here. "
                f"Taking part: {', '.join(sorted(known))}."
            )
    units = [Unit(card, parameters_of(card, given_to(card, request.settings))) for card in methods]
    frames = [_frame(card, request) for card in tasks]
    return [
        Cell(method=unit, seed=seed, **frame)
        for seed in dict.fromkeys(request.seeds)
        for frame in frames
        for unit in units
    ]


def _frame(card: Card, request: Request) -> dict[str, Any]:
    """Return what all cells of a task share."""
    protocols: Mapping[str, Recipe] = card.declared["protocols"]
    protocol = request.protocol or next(iter(protocols))
    if protocol not in protocols:
        raise UnknownName(f"protocol of {card.name}", protocol, protocols)
    official = protocols[protocol]
    parameters, recipe = task_settings(card, official, given_to(card, request.settings))
    model = request.model or recipe.model
    if model not in card.declared["models"]:
        raise UnknownName(f"model of {card.name}", model, card.declared["models"])
    return {
        "task": Unit(card, parameters),
        "model": model,
        "protocol": protocol if recipe == official else "custom",
        "recipe": recipe,
        "data": locate(card, request.data),
    }


def plan(cells: Iterable[Cell]) -> Plan:
    """Return the stages of the cells, shared ones once."""
    cells = tuple(cells)
    stages: dict[str, Stage] = {}
    return Plan(cells, tuple(_chain(cell, stages) for cell in cells), stages)


def _chain(cell: Cell, stages: dict[str, Stage]) -> tuple[str, ...]:
    """Add the cell's stages and those of the cells it needs; return the keys of its own."""
    inputs = {role: _chain(other, stages)[-2] for role, other in needed(cell).items()}
    chain = []
    if cell.data.origin == SYNTHETIC:
        inputs["data"] = _add(_stage("data", cell, {}), stages)
        chain.append(inputs["data"])
    if "prepare" in cell.method.card.defines:
        inputs["prepare"] = _add(_stage("prepare", cell, inputs), stages)
        chain.append(inputs["prepare"])
    train = _add(_stage("train", cell, inputs), stages)
    data = {"data": inputs["data"]} if "data" in inputs else {}
    evaluate = _add(_stage("evaluate", cell, {"train": train} | data), stages)
    return (*chain, train, evaluate)


def _add(stage: Stage, stages: dict[str, Stage]) -> str:
    stages.setdefault(stage.key, stage)
    return stage.key


def needed(cell: Cell) -> dict[str, Cell]:
    """Return the cells whose trained weights a cell starts from, by role."""
    units = (cell.method, cell.task)
    needs: dict[str, tuple[Unit, Need]] = {
        role: (unit, need)
        for unit in units
        for role, need in unit.card.declared.get("needs", {}).items()
    }
    return {role: _needed(cell, unit, need) for role, (unit, need) in needs.items()}


def _needed(cell: Cell, unit: Unit, need: Need) -> Cell:
    method = cell.method
    if need.method:
        card = registry.find("method", need.method)
        shared = {name: unit.parameters[name] for name in need.share}
        method = Unit(card, card.defaults | shared)
    frame = {name: getattr(cell, name) for name in ("task", "model", "protocol", "recipe", "data")}
    if need.task:
        protocol = cell.protocol if cell.protocol != "custom" else None
        request = Request([], [need.task], [], cell.model, protocol)
        frame = _frame(registry.find("task", need.task), request)
    return Cell(method=method, seed=cell.seed, **frame)


def _stage(kind: StageKind, cell: Cell, inputs: Mapping[str, str]) -> Stage:
    """Return one stage of a cell, with only what decides its result in its identity."""
    units = (cell.task,) if kind == "data" else (cell.task, cell.method)
    code = fingerprint(WORK[kind], tuple(unit.card for unit in units))
    identity: dict[str, Any] = {
        "key_version": KEY_VERSION,
        "kind": kind,
        "task": cell.task.identity,
        "inputs": dict(inputs),
        "code": combine(code),
    }
    if kind != "data":
        identity |= {
            "method": cell.method.identity,
            "model": cell.model,
            "recipe": asdict(cell.recipe),
            "seed": cell.seed,
            "data": {"origin": cell.data.origin, "digest": cell.data.digest},
        }
    places: dict[str, str] = {
        unit.card.kind: str(unit.card.path) for unit in units if unit.card.source == "file"
    }
    if cell.data.folder:
        places["data"] = str(cell.data.folder)
    label = cell.task.label if kind == "data" else cell.label
    epochs = cell.recipe.epochs if kind == "train" else 0
    return Stage(kind, label, identity, dict(inputs), code, places, epochs)
