"""What is asked, as cells: method x task x model x seed x protocol, with every name checked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from mixbench.declare import BASELINE, Need, Recipe
from mixbench.errors import DataError, UnknownName, UsageError
from mixbench.models.names import timm_models
from mixbench.plan.data import DataSource, content_digest, locate, published
from mixbench.plan.tuning import Grid, grid_of
from mixbench.registry.cards import Card
from mixbench.registry.parameters import Setting, given_to, parameters_of, task_settings
from mixbench.registry.units import find

PUBLISHED = "published"
# Values of parameters that may be files; and what begins with this.
NO_FILE = ("", "random", "pretrained", "synthetic", "timm", PUBLISHED)
TIMM = "timm:"


@dataclass(frozen=True)
class Unit:
    """A method or task with the values of its parameters.

    Attributes
    ----------
    base
        The values that nobody set: the defaults, and what the protocol makes of them.
    published
        Where the published weights lie that parameters ask for.
    """

    card: Card
    parameters: Mapping[str, Any]
    base: Mapping[str, Any]
    published: Mapping[str, str] = field(default_factory=dict)

    @property
    def identity(self) -> dict[str, Any]:
        """What decides results beside the unit's own code: files count by their content."""
        contents = {
            name: f"sha256:{content_digest(Path(path))}" for name, path in self.files.items()
        }
        return {
            "name": self.card.name,
            "version": self.card.version,
            "parameters": {**self.parameters, **contents},
        }

    @property
    def files(self) -> dict[str, str]:
        """The parameters that are files, with their absolute paths."""
        names = [p.name for p in self.card.parameters if p.annotation in {"File", "Weights"}]
        values = {name: self.parameters[name] for name in names}
        given = {n: v for n, v in values.items() if v not in NO_FILE and not v.startswith(TIMM)}
        return {n: str(Path(path).resolve()) for n, path in {**given, **self.published}.items()}

    @property
    def changed(self) -> list[str]:
        """Names of the parameters that somebody set to another value."""
        return [name for name, value in self.parameters.items() if value != self.base[name]]

    @property
    def label(self) -> str:
        """The name, with the parameters that were changed."""
        changed = [f"{name}={self.parameters[name]}" for name in self.changed]
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
    settings: Sequence[Setting] = ()  # what the user set, for the cells that this one starts from
    grid: Grid = field(default_factory=dict)  # what its own training is tuned over, if it is

    @property
    def custom(self) -> bool:
        """Whether the recipe differs from the protocol's."""
        return self.recipe != official_recipe(self.task.card, self.protocol, self.model)

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
    init: str | None = None
    tune: Mapping[str, Sequence[str]] | None = None  # values by name; empty for the usual ones


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
    known |= {n.task for card in tasks for n in card.declared.get("needs", {}).values() if n.task}
    for setting in request.settings:
        if setting.unit not in known:
            raise UsageError(
                f"--set {setting.unit}.{setting.parameter}: {setting.unit!r} takes no part here. "
                f"Taking part: {', '.join(sorted(known))}."
            )
    halves = []
    for frame in (_frame(card, request) for card in tasks):
        units = [_method(card, frame["protocol"], request.settings) for card in methods]
        halves += [{"method": unit, **frame} for unit in units]
    for half in halves:
        _check_that_it_mixes(half["method"], half["task"])
    return [Cell(seed=seed, **half) for seed in dict.fromkeys(request.seeds) for half in halves]


def _check_that_it_mixes(method: Unit, task: Unit) -> None:
    """Refuse a method that would mix nowhere: its number would be the baseline's."""
    if method.card.name == BASELINE or task.parameters.get("mix_in") != "pretrain":
        return
    for name in _weights(task.card):
        value = task.parameters[name]
        if value in {"random", "timm", PUBLISHED} or value.startswith(TIMM):
            where = next(p.type for p in task.card.parameters if p.name == "mix_in")
            too = f", or give --set {task.card.name}.mix_in=finetune"
            raise UsageError(
                f"{method.card.name} would mix nowhere: {task.card.name} starts from {value} "
                f"weights and fine-tunes plainly. Start from its own pre-training (--init "
                f"pretrained) or from a file of it{too if 'finetune' in get_args(where) else ''}."
            )


def _method(card: Card, protocol: str, settings: Sequence[Setting]) -> Unit:
    """Return a method with the values that the user, the protocol or the method itself gives."""
    base = base_values(card, protocol)
    return Unit(card, parameters_of(card, base, given_to(card, settings)), base)


def base_values(card: Card, protocol: str) -> dict[str, Any]:
    """Return the values of a unit's parameters that nobody sets."""
    by_protocol: Mapping[str, Mapping[str, Any]] = card.declared.get("by_protocol", {})
    return {**card.defaults, **by_protocol.get(protocol, {})}


def _frame(card: Card, request: Request) -> dict[str, Any]:
    """Return what all cells of a task share."""
    protocols: Mapping[str, Recipe] = card.declared["protocols"]
    protocol = request.protocol or next(iter(protocols))
    if protocol not in protocols:
        raise UnknownName(f"protocol of {card.name}", protocol, protocols)
    given = _init(card, request.init) | given_to(card, request.settings)
    model = _model(card, request.model or given.get("model") or protocols[protocol].model)
    official, base = official_recipe(card, protocol, model), base_values(card, protocol)
    parameters, recipe = task_settings(card, base, official, given)
    data = locate(card, request.data, protocol, parameters)
    asked = [name for name in _weights(card) if parameters[name] == PUBLISHED]
    files = {name: published(card, name, model) for name in asked}
    return {
        "task": Unit(card, parameters, base, files),
        "model": model,
        "protocol": protocol,
        "recipe": recipe,
        "data": data,
        "settings": request.settings,
        "grid": {} if request.tune is None else grid_of(card.name, recipe, request.tune),
    }


def _weights(card: Card) -> list[str]:
    """Return the names of the parameters that say what training starts from."""
    return [p.name for p in card.parameters if p.annotation == "Weights"]


def _init(card: Card, init: str | None) -> dict[str, str]:
    """Return what ``--init`` gives to a task."""
    if init is not None and not _weights(card):
        raise UsageError(f"--init: the task {card.name} starts from no weights; leave it out.")
    return dict.fromkeys(_weights(card), init) if init is not None else {}


def official_recipe(card: Card, protocol: str, model: str) -> Recipe:
    """Return a protocol's recipe for a model, with nothing set by the user."""
    recipe: Recipe = card.declared["protocols"][protocol]
    return replace(recipe, **card.declared.get("by_model", {}).get(protocol, {}).get(model, {}))


def _model(card: Card, name: str) -> str:
    """Return a model's name if the task builds it."""
    declared: Sequence[str] = card.declared["models"]
    if name in declared:
        return name
    if not card.declared.get("takes_timm"):
        raise UnknownName(f"model of {card.name}", name, declared)
    of_timm = timm_models()
    if name not in of_timm:
        shown = [*declared, "every model of timm"]
        raise UnknownName(f"model of {card.name}", name, {*declared, *of_timm}, shown)
    return name


def as_trained(cell: Cell) -> Cell:
    """Return a cell as its own training sees it: plain, where the method mixes elsewhere."""
    if cell.task.parameters.get("mix_in") != "pretrain":
        return cell
    return replace(cell, method=_method(find("method", BASELINE), cell.protocol, ()))


def needed(cell: Cell) -> dict[str, Cell]:
    """Return the cells whose trained weights a cell starts from, by role."""
    return {
        role: _needed(cell, unit, need)
        for unit in (as_trained(cell).method, cell.task)
        for role, need in unit.card.declared.get("needs", {}).items()
        if all(unit.parameters[name] in values for name, values in need.when.items())
    }


def _needed(cell: Cell, unit: Unit, need: Need) -> Cell:
    method = cell.method
    if need.method:
        base = _method(find("method", need.method), cell.protocol, ())
        shared = {name: unit.parameters[name] for name in need.share}
        method = Unit(base.card, {**base.parameters, **shared}, base.base)
    same = ("task", "model", "protocol", "recipe", "data", "settings")
    frame = {name: getattr(cell, name) for name in same}
    if need.task:
        request = Request(
            *([], [need.task], [], cell.model, cell.protocol), need.data or None, cell.settings
        )
        try:
            frame = _frame(find("task", need.task), request)
        except DataError as error:
            raise DataError(
                f"{cell.task.card.name} starts from a model of {need.task}, unless --init names "
                f"other weights. {error}"
            ) from error
    return Cell(method=method, seed=cell.seed, **frame)
