"""A cell: method x task x model x protocol x seed, with all that decides its result."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mixbench.declare import Recipe
from mixbench.plan.data import DataSource, content_digest
from mixbench.plan.tuning import Grid
from mixbench.registry.cards import Card
from mixbench.registry.parameters import Setting

PUBLISHED, PRETRAINED = "published", "pretrained"
# Values of parameters that may be files; and what begins with this.
NO_FILE = ("", "random", PRETRAINED, "synthetic", "timm", PUBLISHED)
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
    """One method on one task with one model, protocol and seed.

    Attributes
    ----------
    recipe
        That trained the model, whether this task or its subject did.
    settings
        What the user set, for the cells that this one starts from.
    grid
        What its training is tuned over, if it is.
    subject
        The cell whose model is evaluated, where the task trains none.
    """

    method: Unit
    task: Unit
    model: str
    protocol: str
    recipe: Recipe
    seed: int
    data: DataSource
    settings: Sequence[Setting] = ()
    grid: Grid = field(default_factory=dict)
    subject: "Cell | None" = None

    @property
    def custom(self) -> bool:
        """Whether the recipe differs from the protocol's."""
        return self.recipe != official_recipe(self.task.card, self.protocol, self.model)

    @property
    def trained_by(self) -> "Cell | None":
        """The cell whose training its model ends; None where weights are given instead."""
        if self.subject is None:
            return self
        weights = [self.task.parameters[name] for name in weights_of(self.task.card)]
        return self.subject if weights == [PRETRAINED] else None

    @property
    def has_own_data(self) -> bool:
        """Whether it reads other data than its subject."""
        if self.subject is None:
            return True
        return bool(self.task.card.declared["data"] != self.subject.task.card.declared["data"])

    @property
    def label(self) -> str:
        """How the cell is called in what people read."""
        return f"{self.task.label}/{self.method.label}/{self.model}/s{self.seed}"


def official_recipe(card: Card, protocol: str, model: str) -> Recipe:
    """Return a protocol's recipe for a model, with nothing set by the user."""
    recipe: Recipe = card.declared["protocols"][protocol]
    return replace(recipe, **card.declared.get("by_model", {}).get(protocol, {}).get(model, {}))


def weights_of(card: Card) -> list[str]:
    """Return the names of the parameters that say what training starts from."""
    return [p.name for p in card.parameters if p.annotation == "Weights"]
