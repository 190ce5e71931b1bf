"""What is asked, as cells: method x task x model x seed x protocol, with every name checked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mixbench.declare import Need, Recipe
from mixbench.errors import UnknownName, UsageError
from mixbench.plan.data import DataSource, locate
from mixbench.registry.cards import Card
from mixbench.registry.parameters import Setting, given_to, parameters_of, task_settings
from mixbench.registry.units import find


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
    methods = [find("method", name) for name in dict.fromkeys(request.methods)]
    tasks = [find("task", name) for name in dict.fromkeys(request.tasks)]
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
        card = find("method", need.method)
        shared = {name: unit.parameters[name] for name in need.share}
        method = Unit(card, card.defaults | shared)
    frame = {name: getattr(cell, name) for name in ("task", "model", "protocol", "recipe", "data")}
    if need.task:
        protocol = cell.protocol if cell.protocol != "custom" else None
        request = Request([], [need.task], [], cell.model, protocol)
        frame = _frame(find("task", need.task), request)
    return Cell(method=method, seed=cell.seed, **frame)
