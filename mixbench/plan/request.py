"""Turns the user's request into cells, and checks every name in it."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from mixbench.datasets.locate import (
    HOLDOUT,
    SYNTHETIC,
    DataSource,
    absent,
    locate,
    published,
)
from mixbench.datasets.own import own_layout
from mixbench.declare import BASELINE, Need, Recipe
from mixbench.declare.facts import Parameters, ParameterValue
from mixbench.errors import DataError, DataMissing, UnknownName, UsageError
from mixbench.plan.cells import (
    PRETRAINED,
    PUBLISHED,
    Cell,
    Unit,
    official_recipe,
    weights_of,
)
from mixbench.plan.checks import (
    check_held_out,
    check_method,
    check_net,
    check_recipe,
    check_that_it_mixes,
    check_trained_apart,
    check_weights,
)
from mixbench.plan.models import ModelName, named
from mixbench.plan.tuning import Grid, candidates, grid_of
from mixbench.registry.cards import Card, MethodCard, TaskCard
from mixbench.registry.hub import of_hub
from mixbench.registry.model_names import HUB
from mixbench.registry.parameters import (
    Setting,
    given_to,
    parameters_of,
    recipe_value,
    task_settings,
)
from mixbench.registry.units import find, paths

EVERY_RECIPE = "recipe"  # in settings, in place of a task: the recipes of all tasks


@dataclass(frozen=True)
class Request:
    """The methods, tasks, seeds and options that the user asked for, as names and texts."""

    methods: Sequence[str]
    tasks: Sequence[str]
    seeds: Sequence[int]
    model: str | None = None
    protocol: str | None = None
    data: str | None = None
    settings: Sequence[Setting] = ()
    init: str | None = None
    tune: Mapping[str, Sequence[str]] | None = None  # values by name; if empty, the default grid
    without_data: bool = False  # whether data and published weights may be missing
    unlocated: bool = False  # whether not to look for data and published weights at all


@dataclass(frozen=True)
class Frame:
    """A cell without its method and seed; see `Cell` for the fields."""

    task: Unit[TaskCard]
    model: str
    protocol: str
    recipe: Recipe
    data: DataSource
    settings: Sequence[Setting]
    grid: Grid = field(default_factory=dict)
    base: "Frame | None" = None
    model_file: str = ""

    def cell(self, method: Unit[MethodCard], seed: int) -> Cell:
        """Return the cell with this method and seed."""
        return Cell(
            method=method,
            task=self.task,
            model=self.model,
            protocol=self.protocol,
            recipe=self.recipe,
            seed=seed,
            data=self.data,
            settings=self.settings,
            grid=self.grid,
            base=self.base.cell(method, seed) if self.base else None,
            model_file=self.model_file,
        )


def cells_of(request: Request) -> list[Cell]:
    """Return every cell of a request.

    The seed varies slowest, so that an interrupted run has complete seeds of all methods.

    Raises
    ------
    UnknownName
        If a method, task, model, protocol or parameter does not exist.
    UsageError
        If a setting names a method or task that is not part of the request, or if a method would
        have no effect on a task.
    """
    methods = [find("method", name) for name in dict.fromkeys(request.methods)]
    named = [own_or_named(name, request.data) for name in dict.fromkeys(request.tasks)]
    if request.unlocated and any(card.declared.data.own for card, _ in named):
        raise UsageError(
            "images of the user's own cannot be submitted, because nobody else has them: use "
            "`mixbench report`."
        )
    asked = [(card, replace(request, data=data)) for card, data in named]
    tasks = [card for card, _ in asked]
    known = {card.name for card in [*methods, *tasks]}
    known |= {n.task for card in tasks for n in card.declared.needs.values() if n.task}
    known |= {card.declared.evaluates for card in tasks if card.declared.evaluates}
    known |= {EVERY_RECIPE}
    for setting in request.settings:
        if setting.unit == EVERY_RECIPE:
            recipe_value(EVERY_RECIPE, setting.parameter, setting.text)  # no parameter of tasks
        if setting.unit not in known:
            raise UsageError(
                f"--set {setting.unit}.{setting.parameter}: {setting.unit!r} is not part of "
                f"this run. Methods and tasks of this run: {', '.join(sorted(known))}."
            )
    frames = [_frame(card, own) for card, own in asked]
    pairs = [
        (frame, _method(card, frame.protocol, request.settings))
        for frame in frames
        for card in methods
    ]
    for frame in frames:
        check_trained_apart(frame.task, len(methods), len({*request.seeds}))
    for frame, method in pairs:
        check_that_it_mixes(method, frame.task)
        _check_held_out(method, frame)
        check_method(method, frame.recipe)
    return [
        frame.cell(method, seed) for seed in dict.fromkeys(request.seeds) for frame, method in pairs
    ]


def own_or_named(name: str, data: str | None) -> tuple[TaskCard, str | None]:
    """Return the card of a task and its data; a folder stands for the user's own images in it.

    Raises
    ------
    UsageError
        If data is given twice, or a folder without a slash in front.
    """
    if not _is_folder(name):
        return find("task", name), data
    if name.isidentifier():
        try:
            return find("task", name), data
        except UnknownName as error:
            raise UsageError(f"{error} For the images in this folder, write ./{name}.") from error
    if data is not None:
        raise UsageError(f"--data must be left out with the folder {name} (got {data}).")
    cards = (find("task", name) for name in paths("task"))
    own = next(card for card in cards if card.declared.data.own)
    return own, name


def _is_folder(name: str) -> bool:
    """Return whether a folder has this path."""
    with suppress(RuntimeError, OSError):  # no such user; too long for a name
        return Path(name).expanduser().is_dir()
    return False


def _check_held_out(method: Unit[MethodCard], frame: Frame) -> None:
    trained = frame.base or frame
    check_held_out(method, trained.task, trained.recipe, trained.grid)


def layout_values(
    card: TaskCard, data: str | None, given: Mapping[str, str] = MappingProxyType({})
) -> dict[str, ParameterValue]:
    """Return the parameters that the layout of the user's own images decides; none for other data.

    Parameters
    ----------
    card
        Card of the task.
    data
        Value of ``--data``.
    given
        Parameters that the user sets.

    Raises
    ------
    UsageError
        If the user sets another layout.
    """
    if not card.declared.data.own or data is None or data == SYNTHETIC:
        return {}
    folder = Path(data).expanduser()
    found = own_layout(folder)._asdict()
    if given.get("variant", found["variant"]) != found["variant"]:
        raise UsageError(
            f"variant must be left out: {folder} has the layout {found['variant']} (got "
            f"{given['variant']})."
        )
    return found


def _method(card: MethodCard, protocol: str, settings: Sequence[Setting]) -> Unit[MethodCard]:
    """Return a method with its parameters set by the user, the protocol or its defaults."""
    base = base_values(card, protocol)
    return Unit(card, parameters_of(card, base, given_to(card, settings)), base)


def base_values(card: Card, protocol: str) -> dict[str, ParameterValue]:
    """Return a unit's parameters with the protocol's values and the defaults.

    A protocol such as ``quick_deit`` has the values of ``quick``, unless it has values of its own.
    """
    general = "quick" if protocol.startswith("quick_") else protocol
    by_protocol = card.declared.by_protocol
    return {**card.defaults, **by_protocol.get(protocol, by_protocol.get(general, {}))}


def _frame(card: TaskCard, request: Request) -> Frame:
    """Return the frame of a task: everything that all of its cells share."""
    if card.declared.evaluates:
        return _evaluation(card, request)
    protocols = card.declared.protocols
    protocol = request.protocol or next(iter(protocols))
    if protocol not in protocols:
        raise UnknownName(f"protocol of {card.name}", protocol, protocols)
    every = {s.parameter: s.text for s in request.settings if s.unit == EVERY_RECIPE}
    given = every | given_to(card, request.settings)
    if request.model and given.get("model", request.model) != request.model:
        raise UsageError(
            f"--set {card.name}.model={given['model']} contradicts --model {request.model}: leave "
            "out one of both."
        )
    asked = _model(card, request.model or given.get("model") or protocols[protocol].model)
    given = every | _given(card, request, asked.weights)
    model = asked.name
    check_net(card, protocol, model)
    official, base = official_recipe(card, protocol, model), base_values(card, protocol)
    base |= layout_values(card, request.data, given)
    parameters, recipe = task_settings(card, base, official, given)
    parameters = _pinned(card, parameters, request)
    check_weights(card, parameters)
    data = _located(card, request, protocol, parameters)
    files = _published(card, request, parameters, model)
    grid = {} if request.tune is None else grid_of(card.name, recipe, request.tune)
    for candidate in candidates(recipe, grid).values() if grid else [recipe]:
        check_recipe(card, protocol, candidate, {*given, *grid})
    unit = Unit(card, parameters, base, files)
    settings = request.settings
    return Frame(unit, model, protocol, recipe, data, settings, grid, model_file=asked.file)


def _pinned(
    card: TaskCard, parameters: dict[str, ParameterValue], request: Request
) -> dict[str, ParameterValue]:
    """Return parameters in which weights of the Hub are named with their commit of now."""
    if request.unlocated:
        return parameters
    named_there = {name: str(parameters[name]) for name in weights_of(card)}
    of_the_hub = {n: of_hub(value)[1] for n, value in named_there.items() if value.startswith(HUB)}
    return {**parameters, **of_the_hub}


def _located(card: TaskCard, request: Request, protocol: str, parameters: Parameters) -> DataSource:
    """Return the data of a task, or a stand-in if it may be missing."""
    if request.unlocated:
        generated = request.data == SYNTHETIC or (
            request.data is None and protocol in card.declared.synthetic.protocols
        )
        return DataSource(SYNTHETIC, None, "") if generated else absent(card, parameters)
    try:
        return locate(card, request.data, protocol, parameters)
    except DataMissing:
        if not request.without_data or card.declared.data.own:
            raise
        return absent(card, parameters)


def _published(
    card: TaskCard, request: Request, parameters: Parameters, model: str
) -> dict[str, str]:
    """Return the files of published weights that a task starts from, by parameter."""
    asked = [name for name in weights_of(card) if parameters[name] == PUBLISHED]
    if request.unlocated:
        return {}
    try:
        return {name: published(card, name, model) for name in asked}
    except DataMissing:
        if not request.without_data:
            raise
        return {}


def _evaluation(card: TaskCard, request: Request) -> Frame:
    """Return the frame of a task that evaluates the models of its base task."""
    other = find("task", card.declared.evaluates)
    protocol = request.protocol or next(iter(card.declared.protocols))
    values = base_values(card, protocol)
    asked = _model(other, request.model) if request.model else None
    given = _given(card, request, asked.weights if asked else "")
    parameters = _pinned(card, parameters_of(card, values, given), request)
    (weights,) = (parameters[name] for name in weights_of(card))
    if weights in {"random", "synthetic", PUBLISHED}:
        raise UsageError(
            f"{card.name} evaluates the models of {other.name}: --init must be {PRETRAINED}, timm, "
            f"timm:TAG, hf-hub:ORG/NAME or a weights file (got {weights!r})."
        )
    if weights != PRETRAINED and request.tune is not None:
        raise UsageError(f"--tune: with {weights} weights, {card.name} trains no model; omit it.")
    shares_data = card.declared.data == other.declared.data
    # Do not require data that no stage reads.
    unread = None if weights == PRETRAINED else SYNTHETIC
    data_asked = request.data if shares_data or request.data == SYNTHETIC else unread
    model = asked.name if asked and asked.weights else request.model
    try:
        base = _frame(other, replace(request, data=data_asked, init=None, model=model))
    except DataError as error:
        raise type(error)(
            f"{card.name} evaluates the models of {other.name}, unless --init names other weights. "
            f"{error}"
        ) from error
    data = base.data if shares_data else _located(card, request, protocol, parameters)
    return replace(base, task=Unit(card, parameters, values), data=data, base=base)


def _given(card: TaskCard, request: Request, of_model: str) -> dict[str, str]:
    """Return the settings of a task, with the weights of ``--init`` or of the model's name."""
    weights, own = _init(card, request.init, of_model), given_to(card, request.settings)
    for name, value in weights.items():
        if own.get(name, value) != value:
            raise UsageError(
                f"--set {card.name}.{name}={own[name]} contradicts {value}, which --init or the "
                "name of the model asks for: leave out one of both."
            )
    return weights | own


def _init(card: TaskCard, init: str | None, of_model: str = "") -> dict[str, str]:
    """Return the parameters of a task that ``--init`` sets, or the name of the model."""
    if init is not None and of_model:
        raise UsageError(
            f"--init must be left out: the name of the model includes weights, {of_model} (got "
            f"{init})."
        )
    init = init or of_model or None
    if init is not None and not weights_of(card):
        raise UsageError(f"--init: the task {card.name} takes no initial weights; leave it out.")
    return dict.fromkeys(weights_of(card), init) if init is not None else {}


def _model(card: TaskCard, name: str) -> ModelName:
    """Return what a model's name means, after checking that the task takes the model."""
    declared = card.declared.models
    if name in declared or card.declared.takes_timm:
        return named(name, declared, card.name)
    raise UnknownName(f"model of {card.name}", name, declared)


def as_trained(cell: Cell) -> Cell:
    """Return the cell, with the baseline as method if the method mixes in pre-training only."""
    if cell.task.parameters.get("mix_in") != "pretrain":
        return cell
    return replace(cell, method=_method(find("method", BASELINE), cell.protocol, ()))


def on_held_in(cell: Cell) -> Cell:
    """Return the cell, trained on the training split only."""
    return replace(cell, recipe=replace(cell.recipe, final_on="train"))


def on_all(cell: Cell) -> Cell:
    """Return the cell, trained on all official training images: nothing is held out."""
    parameters = {**cell.task.parameters, HOLDOUT: 0.0}
    return replace(cell, task=replace(cell.task, parameters=parameters))


# Frames of needed tasks by task, data, model, protocol and settings: each is located once.
Frames = dict[tuple[str, str, str, str, tuple[Setting, ...]], Frame]


def needed(cell: Cell, frames: Frames, *, without_data: bool = False) -> dict[str, Cell]:
    """Return the cells with whose trained weights a cell starts, by role; add their `frames`."""
    units: tuple[Unit[Card], ...] = (as_trained(cell).method, cell.task)
    return {
        role: _needed(cell, unit, need, frames, without_data=without_data)
        for unit in units
        for role, need in unit.card.declared.needs.items()
        if all(unit.parameters[name] in values for name, values in need.when.items())
    }


def _needed(
    cell: Cell, unit: Unit[Card], need: Need, frames: Frames, *, without_data: bool
) -> Cell:
    method = cell.method
    if need.method:
        base = _method(find("method", need.method), cell.protocol, ())
        shared = {name: unit.parameters[name] for name in need.share}
        method = Unit(base.card, {**base.parameters, **shared}, base.base)
    if not need.task:
        check_method(method, cell.recipe)
        return on_held_in(replace(cell, method=method, grid={}, base=None))
    model = cell.model_file or cell.model
    key = need.task, need.data, model, cell.protocol, tuple(cell.settings)
    request = Request([], [need.task], [], *key[2:4], need.data or None, cell.settings)
    request = replace(request, without_data=without_data)
    card = find("task", need.task)
    if cell.protocol not in card.declared.protocols:
        raise UsageError(
            f"{cell.task.card.name} starts from a model of {need.task}, which has no protocol "
            f"{cell.protocol}: choose one of both with --protocol, or other weights with --init."
        )
    try:
        frame = frames[key] if key in frames else _frame(card, request)
    except DataError as error:
        raise DataError(
            f"{cell.task.card.name} starts from a model of {need.task}, unless --init names "
            f"other weights. {error}"
        ) from error
    frames[key] = frame
    _check_held_out(method, frame)
    check_method(method, frame.recipe)
    return frame.cell(method, cell.seed)
