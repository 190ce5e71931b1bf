"""A cell: method x task x model x protocol x seed, with all that decides its result."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, TypeVar

from mixbench.datasets.locate import DataSource, content_digest
from mixbench.declare import Recipe
from mixbench.declare.facts import ParameterValue
from mixbench.plan.tuning import Grid
from mixbench.registry.cards import Card, MethodCard, TaskCard
from mixbench.registry.parameters import Setting

PUBLISHED, PRETRAINED = "published", "pretrained"
# Values of parameters that may be files; and what begins with this.
NO_FILE = ("", "random", PRETRAINED, "synthetic", "timm", PUBLISHED)
TIMM = "timm:"

AnyCard = TypeVar("AnyCard", bound=Card, covariant=True)
Parameters = Mapping[str, ParameterValue]


@dataclass(frozen=True)
class Unit(Generic[AnyCard]):
    """A method or task with the values of its parameters.

    Attributes
    ----------
    base
        The values that nobody set: the defaults, and what the protocol makes of them.
    published
        Where the published weights lie that parameters ask for.
    """

    card: AnyCard
    parameters: Parameters
    base: Parameters
    published: Mapping[str, str] = field(default_factory=dict)

    @property
    def identifying_parameters(self) -> dict[str, ParameterValue]:
        """The parameters as they decide results: files count by their content."""
        contents = {
            name: f"sha256:{content_digest(Path(path))}" for name, path in self.files.items()
        }
        return {**self.parameters, **contents}

    @property
    def files(self) -> dict[str, str]:
        """The parameters that are files, with their absolute paths."""
        names = [p.name for p in self.card.parameters if p.annotation in {"File", "Weights"}]
        values = {name: str(self.parameters[name]) for name in names}
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
    """One method on one task with one model, protocol and seed.

    Attributes
    ----------
    recipe
        The recipe that trained the model: this task's, or that of its base task.
    settings
        What the user set, for the cells that this one starts from.
    grid
        The values of the recipe that its training is tuned over; empty if it is not tuned.
    base
        For a task that only evaluates, the cell of its base task, whose model is evaluated.
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

    @property
    def custom(self) -> bool:
        """Whether the recipe differs from the protocol's."""
        return self.recipe != official_recipe(self.task.card, self.protocol, self.model)

    @property
    def trained_by(self) -> "Cell | None":
        """The cell whose training its model ends; None where weights are given instead."""
        if self.base is None:
            return self
        weights = [self.task.parameters[name] for name in weights_of(self.task.card)]
        return self.base if weights == [PRETRAINED] else None

    @property
    def has_own_data(self) -> bool:
        """Whether it reads other data than its base task."""
        if self.base is None:
            return True
        return self.task.card.declared.data != self.base.task.card.declared.data

    @property
    def label(self) -> str:
        """The cell's name in what people read."""
        return f"{self.task.label}/{self.method.label}/{self.model}/s{self.seed}"


def official_recipe(card: TaskCard, protocol: str, model: str) -> Recipe:
    """Return a protocol's recipe for a model, with nothing set by the user."""
    changes = card.declared.by_model.get(protocol, {}).get(model, {})
    return replace(card.declared.protocols[protocol], **changes)  # type: ignore[arg-type]


def weights_of(card: Card) -> list[str]:
    """Return the names of the parameters that say what training starts from."""
    return [p.name for p in card.parameters if p.annotation == "Weights"]
