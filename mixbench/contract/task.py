"""What a task owes: data, models, recipes, loss and evaluation."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from mixbench.declare import Data, Metric, Need, Recipe, Reference
from mixbench.errors import MixbenchError

Part = Literal["train", "validation", "test"]


class Output(NamedTuple):
    """What a backbone returns.

    Attributes
    ----------
    out
        The prediction in the form that the task's loss takes, (B, classes) for classification.
    features : (B, D, h, w)
        The last feature map.
    """

    out: Tensor
    features: Tensor


class Score(NamedTuple):
    """A metric's value on a part of the data.

    Attributes
    ----------
    stderr
        Standard error over the items, or None where the metric is no mean over items.
    """

    value: float
    stderr: float | None = None


class Split(Protocol):
    """A part of a task's data, with random access.

    Attributes
    ----------
    targets : (N, ...)
        Indexable by an int64 tensor; opaque to methods.
    classes : (N,) int64, or None
        The class of every item, where a task has single classes.
    """

    targets: Tensor
    classes: Tensor | None

    def __len__(self) -> int: ...

    def read(self, index: Tensor, rng: torch.Generator | None) -> Tensor:
        """Return the items' images, normalised; augmented from `rng` unless it is None."""
        ...


class Task:
    """A task: its data, models, recipes, loss and evaluation, in one file.

    Its parameters are the typed, defaulted arguments of ``__init__``.

    Attributes
    ----------
    models
        Names that `build` knows.
    protocols
        Recipes by name; the first is the default.
    references
        Published numbers.
    """

    version: ClassVar[int]
    data: ClassVar[Data]
    metrics: ClassVar[tuple[Metric, ...]]
    models: ClassVar[tuple[str, ...]]
    protocols: ClassVar[Mapping[str, Recipe]]
    references: ClassVar[tuple[Reference, ...]] = ()
    needs: ClassVar[Mapping[str, Need]] = {}

    def load(self, part: Part, folder: Path, seed: int) -> Split:
        """Read one part of the data from files in the official layout.

        The validation part is held out of the official training part, the same for all methods;
        the test part does not depend on `seed`.

        Raises
        ------
        DataError
            If a file is not what the layout demands.
        """
        raise NotImplementedError

    def synthesize(self, folder: Path) -> None:
        """Write generated data in the official layout into an empty folder."""
        raise NotImplementedError

    def build(self, model: str) -> nn.Module:
        """Return a freshly initialised model that returns `Output`.

        It has ``feature_dim``, the depth of its features, ``blocks``, the names of the submodules
        at which a method may mix, and ``classifier``.
        """
        raise NotImplementedError

    def new_classifier(self, feature_dim: int) -> nn.Module:  # noqa: ARG002  # for tasks to define
        """Return a fresh classifier of pooled features; tasks without classes raise."""
        raise MixbenchError(
            f"{type(self).__name__} has no classes, which this method's extra heads need."
        )

    def loss(self, out: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of every item, (B,), not reduced."""
        raise NotImplementedError

    def score(self, outputs: Tensor, targets: Tensor) -> dict[str, Score]:
        """Return every metric that the task declares, from the predictions of a whole part."""
        raise NotImplementedError
