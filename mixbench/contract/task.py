"""The interface of tasks: data, models, recipes, loss and evaluation."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple, Protocol, TypeAlias, get_args

import torch
from torch import Tensor, nn

from mixbench.contract.backbone import Backbone, Output
from mixbench.datasets.archives import Finding, unpack
from mixbench.declare import Archive, Data, Metric, Need, Recipe, Reference, Synthetic
from mixbench.declare.facts import Parameters
from mixbench.errors import DataError, MixbenchError, UsageError

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = get_args(Part)
Predictions: TypeAlias = Mapping[str, Tensor]  # by name, one row for each item


class Score(NamedTuple):
    """The value of a metric on one split of the data.

    Attributes
    ----------
    value
        Value of the metric over the whole split, in the metric's unit.
    stderr
        Standard error of `value` over the items; None if the metric is not a mean over items.
    by_class
        Value for each class, None for a class without a value; None as a whole if the metric is not
        reported by class.
    items : (N,) float64
        Value for each item, used to compare runs item by item; `value` is their mean. None if the
        metric is not a mean over items.
    """

    value: float
    stderr: float | None = None
    by_class: Sequence[float | None] | None = None
    items: Tensor | None = None


class ClassIndex:
    """An index of the items of a split by class.

    Attributes
    ----------
    classes : (N,) int64
        Class of each item.
    counts : (C,) int64
        Number of items of each class.
    """

    def __init__(self, classes: Tensor, num_classes: int) -> None:
        self.classes = classes
        self.counts = classes.bincount(minlength=num_classes)
        self._order = classes.argsort(stable=True)
        self._starts = self.counts.cumsum(0) - self.counts

    def members(self, name: int) -> Tensor:
        """Return the indices of the items of one class, (count,) int64."""
        return self._order[self._starts[name] : self._starts[name] + self.counts[name]]

    def draw(self, classes: Tensor, rng: torch.Generator) -> Tensor:
        """Draw one item uniformly for each given class and return their indices, (M,) int64.

        Raises
        ------
        MixbenchError
            If a given class has no items.
        """
        counts = self.counts[classes]
        if not bool(counts.all()):
            empty = classes[counts == 0].unique().tolist()
            raise MixbenchError(f"There is no image of class {empty[0]} to draw.")
        uniform = torch.rand(len(classes), generator=rng, dtype=torch.float64)
        return self._order[self._starts[classes] + (uniform * counts).long()]


class Split(Protocol):
    """A split of a task's data, with random access.

    Attributes
    ----------
    targets : (N, ...)
        Targets, indexable by an int64 tensor; methods do not interpret them.
    by_class
        Index of the items by class; None if an item does not have exactly one class.
    """

    targets: Tensor
    by_class: ClassIndex | None

    def __len__(self) -> int: ...

    def to(self, device: torch.device) -> "Split":
        """Return the same split for a device, on which its `read` returns images."""
        ...

    def read(self, index: Tensor, rng: torch.Generator | None) -> Tensor:
        """Return the normalised images of items, augmented with `rng` unless it is None."""
        ...


# A function of an encoder and a split; the features of all images of the split, (M, D).
Encode: TypeAlias = Callable[[Callable[[Tensor], Tensor], Split], Tensor]


def check_paths(splits: Mapping[Part, Iterable[Path]]) -> None:
    """Check that every image file exists and belongs to one split.

    Parameters
    ----------
    splits
        Paths of the image files of each split; empty for splits that do not read image files.

    Raises
    ------
    DataError
        If a file is missing or belongs to two splits.
    """
    owner: dict[Path, Part] = {}
    for part, paths in splits.items():
        for path in set(paths):
            if owner.setdefault(path, part) != part:
                raise DataError(
                    f"{path} must belong to one split (got {owner[path]} and {part}): correct the "
                    "lists or annotations that name it."
                )
            if not path.exists():
                raise DataError(f"The image {path} is missing.")


class Normalization(NamedTuple):
    """Normalisation of pixels in [0, 1].

    Attributes
    ----------
    mean
        Mean of each channel, which is subtracted.
    std
        Standard deviation of each channel, by which the difference is divided.
    """

    mean: Sequence[float]
    std: Sequence[float]


class Task:
    """Base class of tasks: data, models, recipes, loss and evaluation in one file.

    The task's parameters are the arguments of ``__init__``; each must have a type and a default.

    Attributes
    ----------
    version
        Version of the task; raise it with every change that changes results.
    data
        Data set that the task reads; with `variants`, the data set of the default variant.
    metrics
        Metrics that `score` returns. An instance may set metrics that depend on its parameters.
    models
        Names of the models that `build` accepts.
    protocols
        Recipes by the name of the protocol; the first is the default.
    references
        Published results, to compare measured ones with.
    needs
        Finished cells of the same model and seed whose models the task starts from, by role.
    takes_timm
        Whether `build` also accepts the name of any timm model.
    synthetic
        Default amount of generated data.
    by_protocol
        By protocol, values of the task's parameters that the user does not set.
    added
        Parameters that the task did not have in earlier results. Keys and records leave them out
        while they have their defaults, and so stay valid.
    by_model
        By protocol and model, values of the recipe that differ from the protocol's.
    published
        Files with published weights, by model, for a parameter of type `Weights`.
    variants
        Data sets by value of the parameter `variant`, for a task whose data is published in several
        variants.
    items_per_image
        Number of training items that the task makes of each training item of the data.
    test_items_per_image
        Number of test items that the task makes of each test image. A parameter `images`, if there
        is one and it is not 0, is the number of test images that are used.
    evaluation_batch
        Number of items per batch in evaluation; 0 if it depends on the size of the images.
    num_classes
        Number of classes, for methods to check their parameters; 0 if an item does not have exactly
        one class.
    image_size
        Height and width of the images that the model takes, for methods to check their parameters.
    normalization
        Mean and standard deviation of each channel, with which images in the range from 0 to 1 are
        normalised; None if a task does not say.
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
    by_protocol: ClassVar[Mapping[str, Parameters]] = {}
    added: ClassVar[tuple[str, ...]] = ()
    by_model: ClassVar[Mapping[str, Mapping[str, Parameters]]] = {}
    published: ClassVar[Mapping[str, Archive]] = {}
    variants: ClassVar[Mapping[str, Data]] = {}
    items_per_image: ClassVar[int] = 1
    test_items_per_image: ClassVar[int] = 1
    evaluation_batch: ClassVar[int] = 0
    num_classes: int = 0
    normalization: Normalization | None = None
    image_size: tuple[int, int]

    @property
    def test_size(self) -> tuple[int, int]:
        """Height and width of the images in validation and test: by default, `image_size`."""
        return self.image_size

    @property
    def held_out(self) -> float:
        """Fraction of the official training images that is held out: by default, `holdout`."""
        return float(getattr(self, "holdout", 0.0))

    @property
    def has_validation(self) -> bool:
        """Whether there is a validation split: by default, if `holdout` is not 0."""
        return getattr(self, "holdout", 1) > 0

    def load(self, part: Part, folder: Path, seed: int) -> Split:
        """Read one split of the data from files in the official layout.

        The validation split is held out from the official training split and is the same for all
        methods; it is not asked for if `has_validation` is false. The test split does not depend on
        `seed`.

        Raises
        ------
        DataError
            If a file does not follow the official layout.
        """
        raise NotImplementedError

    def synthesize(self, folder: Path, amount: Synthetic) -> None:
        """Write generated data in the official layout into an empty folder."""
        raise NotImplementedError

    def unpack(self, archive: Path, folder: Path) -> None:
        """Unpack one of the data's archives into the data's folder."""
        unpack(archive, folder)

    def convert(self, source: Path, folder: Path) -> None:
        """Write data in the official layout into an empty folder, from a copy in another format.

        Parameters
        ----------
        source
            Folder of the copy.
        folder
            Folder to write into.

        Raises
        ------
        UsageError
            If the task knows no other format.
        DataError
            If the copy does not have the format that the task knows.
        """
        raise UsageError(f"{type(self).__name__} cannot be converted from another format.")

    def check_data(self, folder: Path) -> None:
        """Check the files of all splits before anything is trained, without decoding images.

        Raises
        ------
        DataError
            If a split cannot be read, or an image belongs to two splits.
        """
        parts = [part for part in PARTS if part != "validation" or self.has_validation]
        splits = {part: self.load(part, folder, 0) for part in parts}
        check_paths({part: getattr(split, "files", ()) for part, split in splits.items()})

    def verify(self, folder: Path) -> Iterator[Finding]:
        """Yield the results of the task's own checks of the data, beyond digests of files."""
        yield from ()

    def build(self, model: str) -> Backbone:
        """Return a freshly initialised model."""
        raise NotImplementedError

    def start(self, model: Backbone, trained: Mapping[str, Backbone]) -> None:
        """Load the initial weights of training into a freshly built model.

        Parameters
        ----------
        model
            Model that `build` returned; it is modified in place.
        trained
            Models of the finished cells that the task declares in `needs`, by role.

        Raises
        ------
        MixbenchError
            If the weights cannot be read or belong to a different model.
        """

    def precompute_frozen(self, model: Backbone, split: Split, encode: Encode) -> Split:
        """Return a split with the outputs of frozen layers precomputed; by default, `split`.

        Parameters
        ----------
        model
            Model whose frozen layers encode the images.
        split
            Split of the task.
        encode
            Function that applies an encoder to all images of a split. It shares them over the
            processes of the training, and continues where an earlier attempt was stopped.
        """
        return split

    def new_classifier(self, feature_dim: int) -> nn.Module:
        """Return a new classifier for pooled features; raise if the task has no classes."""
        raise MixbenchError(
            f"{type(self).__name__} has no classes, which this method's extra heads need."
        )

    def class_names(self, folder: Path) -> Sequence[str]:
        """Return the names of the classes, in the order of their indices."""
        return [str(index) for index in range(self.num_classes)]

    def loss(self, out: Tensor, targets: Tensor) -> Tensor:
        """Return the unreduced loss of each item, with shape (B,)."""
        raise NotImplementedError

    def predict(
        self,
        model: Backbone,
        read: Callable[[Output], Tensor],
        images: Tensor,
        targets: Tensor,
    ) -> dict[str, Tensor]:
        """Return the tensors of a batch that `score` needs, by name; by default, the predictions.

        Parameters
        ----------
        model
            Model in evaluation mode.
        read
            Function that returns the method's prediction for a model's output, in the form of
            `Output.out`.
        images : (B, C, H, W)
            Images of the batch.
        targets : (B, ...)
            Targets of the batch.
        """
        return {"outputs": read(model(images))}

    def score(self, predictions: Predictions, targets: Tensor) -> dict[str, Score]:
        """Return every metric that the task declares, from the predictions of a whole split.

        It must accept what `compact` returns as well.
        """
        raise NotImplementedError

    def compact(self, predictions: Predictions, targets: Tensor) -> Predictions:
        """Return less data from which `score` computes the same metrics; by default, nothing.

        Values may be rounded so far that metrics change by at most 0.001, or by a thousandth. It is
        what a suite keeps of the predictions of most seeds.
        """
        return {}
