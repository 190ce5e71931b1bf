"""Turns the user's request into cells, and checks every name in it."""

from collections.abc import Container, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import get_args

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
from mixbench.errors import BadParameter, DataError, DataMissing, UnknownName, UsageError
from mixbench.plan.cells import (
    PRETRAINED,
    PUBLISHED,
    TIMM,
    Cell,
    Unit,
    official_recipe,
    weights_of,
)
from mixbench.plan.tuning import Grid, candidates, grid_of
from mixbench.registry.cards import Card, MethodCard, TaskCard
from mixbench.registry.net_kinds import net_kind
from mixbench.registry.parameters import (
    Setting,
    given_to,
    parameters_of,
    recipe_value,
    task_settings,
)
from mixbench.registry.timm_names import timm_models
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
    for frame, method in pairs:
        _check_that_it_mixes(method, frame.task)
        _check_held_out(method, frame.base or frame)
        _check_method(method, frame.recipe)
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


def _layout(folder: Path, given: Mapping[str, str]) -> dict[str, ParameterValue]:
    """Return the parameters of a task that the layout of the user's own images decides."""
    found = own_layout(folder)._asdict()
    if given.get("variant", found["variant"]) != found["variant"]:
        raise UsageError(
            f"variant must be left out: {folder} has the layout {found['variant']} (got "
            f"{given['variant']})."
        )
    return found


def _check_that_it_mixes(method: Unit[MethodCard], task: Unit[TaskCard]) -> None:
    """Raise an error if the method would mix in no training, and so equal the baseline."""
    evaluates = bool(task.card.declared.evaluates)
    plainly = evaluates or task.parameters.get("mix_in") == "pretrain"
    if method.card.name == BASELINE or not plainly:
        return
    for name in weights_of(task.card):
        value = str(task.parameters[name])
        if value in {"random", "timm", PUBLISHED} or value.startswith(TIMM):
            if evaluates:
                raise UsageError(
                    f"{method.card.name} would have no effect: {task.card.name} evaluates {value} "
                    f"weights. Use --init {PRETRAINED} or --init FILE with weights trained with it."
                )
            where = next(p.type for p in task.card.parameters if p.name == "mix_in")
            too = f", or --set {task.card.name}.mix_in=finetune"
            raise UsageError(
                f"{method.card.name} would have no effect: {task.card.name} starts from {value} "
                f"weights and fine-tunes without mixing. Use --init pretrained, --init FILE with "
                f"weights pre-trained with it{too if 'finetune' in get_args(where) else ''}."
            )


def _check_held_out(method: Unit[MethodCard], frame: Frame) -> None:
    """Raise an error if images must be held out and are not, or are to be added and are not out."""
    task, recipe = frame.task, frame.recipe
    name, holdout = task.card.name, task.parameters.get(HOLDOUT)
    if recipe.final_on == "all" and holdout is None:
        raise UsageError(f"final_on must be train for {name}, which has no parameter {HOLDOUT}.")
    if holdout == 0 and (frame.grid or "prepare" in method.card.defines):
        user = "--tune" if frame.grid else method.card.name
        raise UsageError(
            f"{HOLDOUT} must be above 0: {user} searches on held-out images (got 0). With --set "
            f"{name}.final_on=all, the final training uses all training images."
        )


def _check_method(method: Unit[MethodCard], recipe: Recipe) -> None:
    """Raise an error if a method cannot do what a recipe asks for."""
    name, declared = method.card.name, method.card.declared
    if recipe.mix_mode == "elem" and not declared.per_element:
        raise UsageError(
            f"mix_mode must be batch or half for {name}, which mixes a batch with one λ or mask "
            "(got elem)."
        )
    if recipe.ema_decay and declared.ema_decay:
        raise UsageError(
            f"ema_decay must be 0 for {name}, which keeps an average of the weights of its own "
            f"(got {recipe.ema_decay})."
        )


def _check_recipe(card: TaskCard, protocol: str, recipe: Recipe, given: Container[str]) -> None:
    """Raise an error if fields of a recipe contradict each other."""
    faults = {
        f"nesterov must be left out: the optimizer {recipe.optimizer} does not know it": (
            recipe.optimizer != "sgd" and recipe.nesterov and "nesterov" in given
        ),
        f"momentum must be below 1 for the optimizer {recipe.optimizer} (got {recipe.momentum})": (
            recipe.optimizer != "sgd" and recipe.momentum >= 1
        ),
        f"aug_repeats must be at most batch_size, {recipe.batch_size} (got {recipe.aug_repeats})": (
            recipe.aug_repeats > recipe.batch_size
        ),
        f"warmup_epochs must be less than epochs, {recipe.epochs} (got {recipe.warmup_epochs})": (
            recipe.warmup_epochs >= recipe.epochs
        ),
        f"warmup_lr must be 0 without warmup_epochs (got {recipe.warmup_lr})": (
            recipe.warmup_lr and not recipe.warmup_epochs
        ),
        f"min_lr must be 0 with milestones, which set the rate (got {recipe.min_lr})": (
            recipe.min_lr and recipe.milestones
        ),
        f"min_lr must be at most lr, {recipe.lr} (got {recipe.min_lr})": recipe.min_lr > recipe.lr,
        f"bce_target_thresh must be 0 without bce_loss (got {recipe.bce_target_thresh})": (
            recipe.bce_target_thresh and not recipe.bce_loss
        ),
        f"mix_off_epoch must be at most epochs, {recipe.epochs} (got {recipe.mix_off_epoch})": (
            recipe.mix_off_epoch > recipe.epochs
        ),
    }
    for wrong, found in faults.items():
        if found:
            raise BadParameter(f"The recipe {protocol} of {card.name}: {wrong}.")


def _check_net(card: TaskCard, protocol: str, model: str) -> None:
    """Raise an error if a protocol is for another kind of network than a model."""
    own = net_kind(card.declared.protocols[protocol].model)
    if own not in {"convolutional", net_kind(model)}:
        raise UsageError(
            f"--protocol {protocol} is the recipe of a {own}, and {model} is a {net_kind(model)} "
            f"network. Use --protocol {_protocol_for(card, protocol, model)}, or another model."
        )


def unsuited(cell: Cell) -> str:
    """Return a warning if a protocol for convolutional networks trains another kind; or nothing."""
    card = cell.base.task.card if cell.base else cell.task.card
    asked = net_kind(cell.model)
    own = net_kind(card.declared.protocols[cell.protocol].model)
    if own == asked or cell.trained_by is None:
        return ""
    better = _protocol_for(card, cell.protocol, cell.model)
    known = net_kind(card.declared.protocols[better].model) == asked
    return (
        f"{cell.model} is a {asked}, and --protocol {cell.protocol} of {card.name} is a recipe for "
        f"{own} networks" + (f": use --protocol {better}." if known else ".")
    )


def _protocol_for(card: TaskCard, protocol: str, model: str) -> str:
    """Return the first protocol for a model's kind of network, as quick as the given one."""
    protocols, quick = card.declared.protocols, protocol.startswith("quick")
    for name, recipe in protocols.items():
        if net_kind(recipe.model) == net_kind(model) and name.startswith("quick") == quick:
            return name
    return next(iter(protocols))


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
    given = every | _init(card, request.init) | given_to(card, request.settings)
    model = _model(card, request.model or given.get("model") or protocols[protocol].model)
    _check_net(card, protocol, model)
    official, base = official_recipe(card, protocol, model), base_values(card, protocol)
    if card.declared.data.own and request.data not in {None, SYNTHETIC}:
        base |= _layout(Path(str(request.data)).expanduser(), given)
    parameters, recipe = task_settings(card, base, official, given)
    data = _located(card, request, protocol, parameters)
    files = _published(card, request, parameters, model)
    grid = {} if request.tune is None else grid_of(card.name, recipe, request.tune)
    for candidate in candidates(recipe, grid).values() if grid else [recipe]:
        _check_recipe(card, protocol, candidate, {*given, *grid})
    unit = Unit(card, parameters, base, files)
    return Frame(unit, model, protocol, recipe, data, request.settings, grid)


def _located(card: TaskCard, request: Request, protocol: str, parameters: Parameters) -> DataSource:
    """Return the data of a task, or a stand-in if it may be missing."""
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
    given = _init(card, request.init) | given_to(card, request.settings)
    parameters = parameters_of(card, values, given)
    (weights,) = (parameters[name] for name in weights_of(card))
    if weights in {"random", "synthetic", PUBLISHED}:
        raise UsageError(
            f"{card.name} evaluates the models of {other.name}: --init must be {PRETRAINED}, timm, "
            f"timm:TAG or a weights file (got {weights!r})."
        )
    if weights != PRETRAINED and request.tune is not None:
        raise UsageError(f"--tune: with {weights} weights, {card.name} trains no model; omit it.")
    shares_data = card.declared.data == other.declared.data
    # Do not require data that no stage reads.
    unread = None if weights == PRETRAINED else SYNTHETIC
    asked = request.data if shares_data or request.data == SYNTHETIC else unread
    try:
        base = _frame(other, replace(request, data=asked, init=None))
    except DataError as error:
        raise type(error)(
            f"{card.name} evaluates the models of {other.name}, unless --init names other weights. "
            f"{error}"
        ) from error
    data = base.data if shares_data else _located(card, request, protocol, parameters)
    return replace(base, task=Unit(card, parameters, values), data=data, base=base)


def _init(card: TaskCard, init: str | None) -> dict[str, str]:
    """Return the parameters of a task that ``--init`` sets."""
    if init is not None and not weights_of(card):
        raise UsageError(f"--init: the task {card.name} takes no initial weights; leave it out.")
    return dict.fromkeys(weights_of(card), init) if init is not None else {}


def _model(card: TaskCard, name: str) -> str:
    """Return a model's name, after checking that the task can build the model."""
    declared = card.declared.models
    if name in declared:
        return name
    if not card.declared.takes_timm:
        raise UnknownName(f"model of {card.name}", name, declared)
    of_timm = timm_models()
    if name not in of_timm:
        shown = [*declared, "every model of timm"]
        raise UnknownName(f"model of {card.name}", name, {*declared, *of_timm}, shown)
    return name


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
        _check_method(method, cell.recipe)
        return on_held_in(replace(cell, method=method, grid={}, base=None))
    key = need.task, need.data, cell.model, cell.protocol, tuple(cell.settings)
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
    _check_held_out(method, frame.base or frame)
    _check_method(method, frame.recipe)
    return frame.cell(method, cell.seed)
