"""The kinds of facts that a method or task declares, as frozen data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen

Positive = Annotated[float, Gt(0), Lt(float("inf"))]
NonNegative = Annotated[float, Ge(0), Lt(float("inf"))]
Fraction = Annotated[float, Ge(0), Le(1)]
# How far an attack may move a pixel, whose range is 1; 8/255 is a number, too.
Epsilon = Annotated[float, Gt(0), Le(1)]
Epsilons = Annotated[tuple[Epsilon, ...], MinLen(1)]
Count = Annotated[int, Ge(1)]
CountOrZero = Annotated[int, Ge(0)]
SearchGrid = Annotated[int, Ge(2), Le(5)]  # 25 cells: more masks than a search can learn from
# A path. Its content, not its place, decides the result.
File = Annotated[str, "file"]
# What a model starts from: ``random`` or ``published`` weights, those that timm publishes (``timm``
# or ``timm:TAG``), those of a finished cell (``pretrained``; ``synthetic``, if that cell's data is
# generated) or a file.
Weights = Annotated[str, "weights"]
# A value of a parameter, in the types that ``--set`` can give.
ParameterValue = bool | int | float | str | tuple[bool | int | float | str, ...]
BASELINE = "none"  # the method that mixes nothing
# What an evaluation takes over from its base task, unless it declares it itself.
OF_THE_BASE_TASK = (
    *("data", "variants", "synthetic", "models", "takes_timm", "protocols", "by_model"),
)


@dataclass(frozen=True)
class Metric:
    """One number that a task reports.

    Attributes
    ----------
    unit
        ``"%"`` for shares in percent, otherwise the unit's name.
    primary
        Whether leaderboards rank by it; exactly one metric of a task does.
    trivial_baseline
        Whether it is what the primary metric would be without looking at the data: a fact of the
        task, not a merit of a method.
    detail
        Whether it is for the record alone: tables leave it out.
    """

    name: str
    unit: str
    higher_is_better: bool
    primary: bool = False
    trivial_baseline: bool = False
    detail: bool = False


@dataclass(frozen=True)
class Reference:
    """A published number for one method, shown beside the measured one.

    Attributes
    ----------
    where
        Table, row and column in the publication.
    num_seeds
        Runs behind `value` and `std`; None where the publication does not say.
    protocol
        The one that follows the publication.
    remark
        What a reader must know before comparing.
    """

    metric: str
    method: str
    model: str
    value: float
    citation: str
    where: str
    std: float | None = None
    num_seeds: int | None = None
    protocol: str = "paper"
    remark: str = ""


def table_row(  # noqa: PLR0913  # all that tables say of a row
    citation: str,
    where: str,
    model: str,
    numbers: Mapping[str, float | tuple[float, float]],
    *,
    metric: str = "top1",
    num_seeds: int | None = None,
    remark: str = "",
) -> tuple[Reference, ...]:
    """Return a table's row of published numbers: by method, a value or a value and deviation."""
    return tuple(
        Reference(*(metric, method, model, value, citation, where, std, num_seeds), remark=remark)
        for method, number in numbers.items()
        for value, std in [number if isinstance(number, tuple) else (number, None)]
    )


@dataclass(frozen=True)
class Recipe:
    """How a model is trained, the same for every method.

    Attributes
    ----------
    model
        The protocol's model when the user names none.
    lr
        At the first step.
    head_lr_mult
        Of the model's classifier, or what else it calls fast, and of the method's heads, in parts
        of `lr`.
    optimizer
        Of Adam, `momentum` is the decay of the mean, and `nesterov` means nothing.
    milestones : epochs
        After which the learning rate is a tenth of what it was; with none, it is annealed to 0 by
        half a cosine over all steps.
    precision
        ``"tf32"`` lets GPUs round the factors of products; ``"bfloat16"`` runs the forward pass
        under autocast. Weights stay float32.
    memory_format
        ``"channels_last"`` is faster where the device's convolutions want it.
    compile
        Whether torch compiles the model.
    threads
        CPU threads of one run. It decides the order of sums, hence the last bits of the result.
    tail : epochs
        How many of the last epochs keep their weights, for the median of the tail.
    """

    model: str
    epochs: Count
    batch_size: Count = 100
    lr: Positive = 0.1
    head_lr_mult: Positive = 1.0
    momentum: Fraction = 0.9
    nesterov: bool = True
    weight_decay: NonNegative = 5e-4
    optimizer: Literal["sgd", "adam"] = "sgd"
    milestones: tuple[Count, ...] = ()
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    memory_format: Literal["contiguous", "channels_last"] = "contiguous"
    compile: bool = False
    threads: Count = 1
    tail: Count = 10


@dataclass(frozen=True)
class Archive:
    """A file in which data is published.

    Attributes
    ----------
    digest
        MD5 or SHA-256, by its length; or what is known of the beginning of a SHA-256.
    url
        Empty where it must be fetched by hand.
    """

    name: str
    digest: str
    url: str = ""
    bytes: int = 0


@dataclass(frozen=True)
class Data:
    """Where a task's data comes from and how it is known to be the right one.

    Attributes
    ----------
    files
        The MD5 or SHA-256 of official files by their paths under the data's folder; empty where
        none is published.
    file_counts
        Official numbers of files, by the paths of the folders that hold them; 0 where none is
        published.
    suffix
        How the names of the files end that `file_counts` counts; every file, if it is empty.
    archives
        What `files` and `file_counts` are unpacked from.
    manual_steps
        What must be done before, or instead of, a download.
    package
        An installed distribution whose folder `folder` ships the files; empty if none does.
    shares_folder_with
        Another data set in whose folder it lies, because they share files.
    """

    name: str
    version: str
    licence: str
    url: str
    files: Mapping[str, str] = field(default_factory=dict)
    file_counts: Mapping[str, int] = field(default_factory=dict)
    suffix: str = ""
    archives: tuple[Archive, ...] = ()
    manual_steps: str = ""
    package: str = ""
    folder: str = "."
    shares_folder_with: str = ""


@dataclass(frozen=True)
class Synthetic:
    """How much data is generated.

    Attributes
    ----------
    train, test
        Images of every class.
    protocols
        Those that run on generated data unless the user names other.
    """

    train: Count
    test: Count
    seed: CountOrZero = 0
    protocols: tuple[str, ...] = ()


@dataclass(frozen=True)
class Need:
    """Another cell whose trained weights a method or task starts from.

    Attributes
    ----------
    method, task
        Of the needed cell; empty means the same as here. Model and seed are always the same.
    share
        Parameters whose values the needed method takes over.
    data
        Of the needed cell, as ``--data`` would say it; empty means the task's own.
    when
        Values of own parameters, one of each of which must be set for the need to exist.
    """

    method: str = ""
    task: str = ""
    data: str = ""
    share: tuple[str, ...] = ()
    when: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
