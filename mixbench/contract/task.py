"""What a task owes: data, models, recipes, loss and evaluation."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from mixbench.contract.backbone import Backbone, Output
from mixbench.datasets.archives import Finding, unpack
from mixbench.declare import Archive, Data, Metric, Need, Recipe, Reference, Synthetic
from mixbench.errors import MixbenchError

Part = Literal["train", "validation", "test"]
Predictions: TypeAlias = Mapping[str, Tensor]  # by name, one row for each item


class Score(NamedTuple):
    """A metric's value on a part of the data.

    Attributes
    ----------
    stderr
        Standard error over the items, or None where the metric is no mean over items.
    by_class
        The metric of every class, None where it has none; None where it is not told by class.
    items : (N,) float64
        The metric of every item, whose mean `value` is; None where it is no such mean. By them runs
        are compared item by item.
    """

    value: float
    stderr: float | None = None
    by_class: Sequence[float | None] | None = None
    items: Tensor | None = None


class ClassIndex:
    """The items of a split by their classes.

    Attributes
    ----------
    classes : (N,) int64
        Of every item.
    counts : (C,) int64
        Items of every class.
    """

    def __init__(self, classes: Tensor, num_classes: int) -> None:
        self.classes = classes
        self.counts = classes.bincount(minlength=num_classes)
        self._order = classes.argsort(stable=True)
        self._starts = self.counts.cumsum(0) - self.counts

    def members(self, name: int) -> Tensor:
        """Return the items of one class, (count,) int64."""
        return self._order[self._starts[name] : self._starts[name] + self.counts[name]]

    def draw(self, classes: Tensor, rng: torch.Generator) -> Tensor:
        """Return one item, drawn uniformly, of every given class, (M,) int64.

        Raises
        ------
        MixbenchError
            If a class has no item.
        """
        counts = self.counts[classes]
        if not bool(counts.all()):
            empty = classes[counts == 0].unique().tolist()
            raise MixbenchError(f"There is no image of class {empty[0]} to draw.")
        uniform = torch.rand(len(classes), generator=rng, dtype=torch.float64)
        return self._order[self._starts[classes] + (uniform * counts).long()]


class Split(Protocol):
    """A part of a task's data, with random access.

    Attributes
    ----------
    targets : (N, ...)
        Indexable by an int64 tensor; opaque to methods.
    by_class
        None where items have no single class.
    """

    targets: Tensor
    by_class: ClassIndex | None

    def __len__(self) -> int: ...

    def to(self, device: torch.device) -> "Split":
        """Return the same part for a device, on which `read` then returns images."""
        ...

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
    takes_timm
        Whether it also builds every model of timm by its name.
    protocols
        Recipes by name; the first is the default.
    references
        Published numbers.
    synthetic
        How much data is generated unless the user says otherwise.
    by_protocol
        Values that a protocol gives to parameters which the user does not set.
    by_model
        By protocol and model, values of the recipe that are not those of the protocol.
    published
        Files with weights of models, by model, for a parameter of type `Weights`.
    variants
        Data by the values of a parameter `variant`, for a task whose data is published in several;
        `data` is that of its default.
    metrics
        What `score` returns; an instance may have others than its class, by its parameters.
    evaluation_batch
        How many items are predicted at once.
    num_classes, image_size
        For methods to check what they are asked; 0 for a task without single classes.
    """

    version: ClassVar[int]
    data: ClassVar[Data]
    metrics: tuple[Metric, ...]
    models: ClassVar[tuple[str, ...]]
    protocols: ClassVar[Mapping[str, Recipe]]
    references: ClassVar[tuple[Reference, ...]] = ()
    needs: ClassVar[Mapping[str, Need]] = {}
    takes_timm: ClassVar[bool] = False
    synthetic: ClassVar[Synthetic]
    by_protocol: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    by_model: ClassVar[Mapping[str, Mapping[str, Mapping[str, Any]]]] = {}
    published: ClassVar[Mapping[str, Archive]] = {}
    variants: ClassVar[Mapping[str, Data]] = {}
    # Of 224 pixels: as many as a processor's memory holds the widest activations of.
    evaluation_batch: ClassVar[int] = 200
    num_classes: int = 0
    image_size: tuple[int, int]

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

    def synthesize(self, folder: Path, amount: Synthetic) -> None:
        """Write generated data in the official layout into an empty folder."""
        raise NotImplementedError

    def unpack(self, archive: Path, folder: Path) -> None:
        """Unpack one of the data's archives into the data's folder."""
        unpack(archive, folder)

    def verify(self, folder: Path) -> Iterator[Finding]:  # noqa: ARG002  # for tasks to define
        """Yield what is found where more is known of the data than its files' digests."""
        yield from ()

    def build(self, model: str) -> Backbone:
        """Return a freshly initialised model."""
        raise NotImplementedError

    def start(self, model: Backbone, trained: Mapping[str, Backbone]) -> None:
        """Give a freshly built model the weights that its training starts from.

        Parameters
        ----------
        trained
            The models of the finished cells that the task needs, by role.

        Raises
        ------
        MixbenchError
            If they cannot be read, or are another model's.
        """

    def precompute_frozen(self, model: Backbone, split: Split) -> Split:  # noqa: ARG002  # for tasks to define
        """Return a part with what the model never changes computed once: by default, the part."""
        return split

    def new_classifier(self, feature_dim: int) -> nn.Module:  # noqa: ARG002  # for tasks to define
        """Return a fresh classifier of pooled features; tasks without classes raise."""
        raise MixbenchError(
            f"{type(self).__name__} has no classes, which this method's extra heads need."
        )

    def class_names(self, folder: Path) -> Sequence[str]:  # noqa: ARG002  # where names are data
        """Return what the classes are called, in the order of their indices."""
        return [str(index) for index in range(self.num_classes)]

    def loss(self, out: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of every item, (B,), not reduced."""
        raise NotImplementedError

    def predict(
        self,
        model: Backbone,
        read: Callable[[Output], Tensor],
        images: Tensor,
        targets: Tensor,  # noqa: ARG002  # for tasks that look closer
    ) -> dict[str, Tensor]:
        """Return all that is scored of a batch, by name: by default, the predictions alone.

        Parameters
        ----------
        model
            In evaluation mode.
        read
            The method's reading of what the model returns, in the form of `Output.out`.
        """
        return {"outputs": read(model(images))}

    def score(self, predictions: Predictions, targets: Tensor) -> dict[str, Score]:
        """Return every metric that the task declares, from the predictions of a whole part."""
        raise NotImplementedError
