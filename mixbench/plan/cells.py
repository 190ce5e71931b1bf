"""Cells: combinations of method, task, model, protocol and seed, with all that they depend on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Generic, TypeVar

from mixbench.datasets.locate import DataSource, content_digest
from mixbench.declare import Need, Recipe
from mixbench.declare.facts import EXECUTION, ParameterValue
from mixbench.plan.tuning import Grid
from mixbench.registry.cards import Card, MethodCard, TaskCard
from mixbench.registry.model_names import HUB
from mixbench.registry.parameters import Setting, setting_text

PUBLISHED, PRETRAINED = "published", "pretrained"
PATHS = frozenset({"File", "Folder", "Weights"})  # types of parameters that may name a path
# Values of such parameters that name no path, besides those that begin with TIMM or HUB.
NO_FILE = ("", "random", PRETRAINED, "synthetic", "timm", PUBLISHED)
TIMM = "timm:"

AnyCard = TypeVar("AnyCard", bound=Card, covariant=True)
Parameters = Mapping[str, ParameterValue]


@dataclass(frozen=True)
class Unit(Generic[AnyCard]):
    """A method or task with the values of its parameters.

    Attributes
    ----------
    card
        Card of the method or task.
    parameters
        Values of all parameters, by name.
    base
        Values that the parameters have without the user's settings: the protocol's or the defaults.
    published
        Paths of published weights, by the name of the parameter that requests them.
    """

    card: AnyCard
    parameters: Parameters
    base: Parameters
    published: Mapping[str, str] = field(default_factory=dict)

    @property
    def stated(self) -> dict[str, ParameterValue]:
        """The parameters, without those of the card's `added` that have their defaults."""
        defaults = {name: self.card.defaults[name] for name in self.card.declared.added}
        return {
            name: value
            for name, value in self.parameters.items()
            if name not in defaults or value != defaults[name]
        }

    @property
    def replaced(self) -> dict[str, str]:
        """The values of the parameters that `identifying_parameters` replaces."""
        return {**self.files, **{n: str(self.parameters[n]) for n in self._published_by_timm}}

    @property
    def identifying_parameters(self) -> dict[str, ParameterValue]:
        """The parameters, with digests instead of files, and timm's version with its weights."""
        contents = {
            name: f"sha256:{content_digest(Path(path))}" for name, path in self.files.items()
        }
        return {**self.stated, **contents, **self._published_by_timm}

    @property
    def _published_by_timm(self) -> dict[str, str]:
        """The weights that timm publishes, with the version of timm that decides what they are."""
        values = {name: str(self.parameters[name]) for name in weights_of(self.card)}
        return {
            name: f"{value} of {version('timm')}"
            for name, value in values.items()
            if value == "timm" or value.startswith(TIMM)
        }

    @property
    def files(self) -> dict[str, str]:
        """The absolute paths of the parameters that are files, by parameter name."""
        names = [p.name for p in self.card.parameters if p.annotation in PATHS]
        values = {name: str(self.parameters[name]) for name in names}
        no_path = (TIMM, HUB)
        given = {n: v for n, v in values.items() if v not in NO_FILE and not v.startswith(no_path)}
        return {n: str(Path(path).resolve()) for n, path in {**given, **self.published}.items()}

    @property
    def changed(self) -> list[str]:
        """Names of the parameters that the user set to another value than in `base`."""
        return [name for name, value in self.parameters.items() if value != self.base[name]]

    @property
    def label(self) -> str:
        """The name, followed by the changed parameters in brackets, if any."""
        changed = [f"{name}={setting_text(self.parameters[name])}" for name in self.changed]
        return f"{self.card.name}[{','.join(changed)}]" if changed else self.card.name


@dataclass(frozen=True)
class Cell:
    """One method on one task with one model, protocol and seed.

    Attributes
    ----------
    method
        Method with its parameters.
    task
        Task with its parameters.
    model
        Name of the model.
    protocol
        Name of the protocol.
    recipe
        Recipe that trains the model: that of the task, or that of its base task.
    seed
        Random seed of the run.
    data
        Data that the task reads.
    settings
        The user's parameter settings, which also apply to the cells that this one starts from.
    grid
        Grid of recipe values over which the training is tuned; empty if it is not tuned.
    base
        Cell of the base task, whose model is evaluated; None for a task that trains.
    model_file
        Path of the file that builds the model; empty for the models of libraries.
    """

    method: Unit[MethodCard]
    task: Unit[TaskCard]
    model: str
    protocol: str
    recipe: Recipe
    seed: int
    data: DataSource
    settings: Sequence[Setting] = ()
    grid: Grid = field(default_factory=dict)
    base: "Cell | None" = None
    model_file: str = ""

    @property
    def custom(self) -> bool:
        """Whether the recipe differs from the protocol's recipe in more than its execution."""
        official = official_recipe(self.task.card, self.protocol, self.model)
        execution = {name: getattr(self.recipe, name) for name in EXECUTION}
        return self.recipe != replace(official, **execution)

    @property
    def trained_by(self) -> "Cell | None":
        """The cell that trains this cell's model; None if the user gives weights instead."""
        if self.base is None:
            return self
        weights = [self.task.parameters[name] for name in weights_of(self.task.card)]
        return self.base if weights == [PRETRAINED] else None

    @property
    def pretrained_by(self) -> list[Need]:
        """The needed models of other tasks, with which this cell's training starts."""
        trained = self.trained_by
        units = (trained.method, trained.task) if trained is not None else ()
        return [
            need
            for unit in units
            for need in unit.card.declared.needs.values()
            if need.task and all(unit.parameters[name] in v for name, v in need.when.items())
        ]

    @property
    def pretraining(self) -> dict[str, str]:
        """The user's settings of the tasks that train these models, as texts."""
        names = {need.task for need in self.pretrained_by}
        return {f"{s.unit}.{s.parameter}": s.text for s in self.settings if s.unit in names}

    @property
    def has_own_data(self) -> bool:
        """Whether the cell reads other data than its base task, or has no base task."""
        if self.base is None:
            return True
        return self.task.card.declared.data != self.base.task.card.declared.data

    @property
    def label(self) -> str:
        """The cell's name in messages, as in digits/mixup/resnet8/s0."""
        return f"{self.task.label}/{self.method.label}/{self.model}/s{self.seed}"


def official_recipe(card: TaskCard, protocol: str, model: str) -> Recipe:
    """Return a protocol's recipe for a model, without the user's settings."""
    changes = card.declared.by_model.get(protocol, {}).get(model, {})
    return replace(card.declared.protocols[protocol], **changes)  # type: ignore[arg-type]


def weights_of(card: Card) -> list[str]:
    """Return the names of the parameters that set the initial weights."""
    return [p.name for p in card.parameters if p.annotation == "Weights"]
