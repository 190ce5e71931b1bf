"""The dataclasses and parameter types that method and task files declare."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen

Positive = Annotated[float, Gt(0), Lt(float("inf"))]
NonNegative = Annotated[float, Ge(0), Lt(float("inf"))]
Fraction = Annotated[float, Ge(0), Le(1)]
PositiveFraction = Annotated[float, Gt(0), Le(1)]
FractionBelow1 = Annotated[float, Ge(0), Lt(1)]
# Maximum change of a pixel by an attack, as a fraction of the pixel range; 8/255 is accepted.
Epsilon = Annotated[float, Gt(0), Le(1)]
Epsilons = Annotated[tuple[Epsilon, ...], MinLen(1)]
Count = Annotated[int, Ge(1)]
CountOrZero = Annotated[int, Ge(0)]
SearchGrid = Annotated[int, Ge(2), Le(5)]  # finer grids have too many masks to search
# Path of a file. Keys depend on the content of the file, not on its path.
File = Annotated[str, "file"]
# Path of a folder. Keys depend on the paths and sizes of images and the content of other files.
Folder = Annotated[str, "folder"]
# Initial weights of a model: ``random``, ``published`` (from `Task.published`), those that timm
# publishes (``timm`` or ``timm:TAG``), those of a model of timm on the Hugging Face Hub
# (``hf-hub:ORG/NAME``), those of a finished cell (``pretrained``; ``synthetic`` if that cell's data
# is generated), or the path of a file.
Weights = Annotated[str, "weights"]
# Value of a parameter, of any type that ``--set`` accepts.
Parameters = Mapping[str, Any]  # by name; each value has the type that the class declares
ParameterValue = bool | int | float | str | tuple[bool | int | float | str, ...]
BASELINE = "none"  # name of the method that does not mix
MOST_SEEDS = 1000  # of one command or suite
# Attributes that an evaluation inherits from its base task unless it declares them itself.
OF_THE_BASE_TASK = (
    *("data", "variants", "synthetic", "models", "takes_timm", "protocols", "by_model"),
)


# Attributes of methods that hold only for the class that declares them.
NOT_INHERITED = frozenset({"per_element", "recipe_of"})


@dataclass(frozen=True)
class Metric:
    """A metric that a task reports.

    Attributes
    ----------
    name
        Name of the metric in records and tables.
    unit
        Unit of the metric: ``"%"`` for percentages, otherwise the name of the unit.
    higher_is_better
        Whether a higher value is better.
    primary
        Whether leaderboards rank by this metric; exactly one metric of a task is primary.
    trivial_baseline
        Whether this is the value that the primary metric has for a predictor that ignores its
        input. It characterises the task, not a method.
    detail
        Whether the metric appears only in records and is left out of tables.
    highest
        Largest possible value; None for 100 with percentages, and for no limit with other units.
    """

    name: str
    unit: str
    higher_is_better: bool
    primary: bool = False
    trivial_baseline: bool = False
    detail: bool = False
    highest: float | None = None

    @property
    def highest_value(self) -> float:
        """The largest possible value."""
        if self.highest is not None:
            return self.highest
        return 100.0 if self.unit == "%" else float("inf")


@dataclass(frozen=True)
class Reference:
    """A published result of one method, shown next to the measured one.

    Attributes
    ----------
    metric
        Name of the metric that was published.
    method
        Name of the method in mixbench.
    model
        Name of the model in mixbench.
    value
        Published value, in the unit of the metric.
    citation
        Publication, with its identifier.
    where
        Table, row and column in the publication.
    std
        Published standard deviation over runs; None if the publication does not state it.
    num_seeds
        Number of runs behind `value` and `std`; None if the publication does not state it.
    protocol
        Name of the protocol that follows the publication.
    remark
        Differences that a reader must know before comparing.
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


def table_row(  # noqa: PLR0913  # the columns of a published table
    citation: str,
    where: str,
    model: str,
    numbers: Mapping[str, float | tuple[float, float]],
    *,
    metric: str = "top1",
    num_seeds: int | None = None,
    protocol: str = "paper",
    remark: str = "",
) -> tuple[Reference, ...]:
    """Return the references of one row of a published table.

    Parameters
    ----------
    citation
        Publication, with its identifier.
    where
        Table, row and column in the publication.
    model
        Name of the model in mixbench.
    numbers
        By method, the value, or the value and its standard deviation.
    metric
        Name of the metric that the row reports.
    num_seeds
        Number of runs behind each value; None if the publication does not state it.
    protocol
        Name of the protocol that follows the publication.
    remark
        Differences that a reader must know before comparing.
    """
    return tuple(
        Reference(
            *(metric, method, model, value, citation, where, std, num_seeds), protocol, remark
        )
        for method, number in numbers.items()
        for value, std in [number if isinstance(number, tuple) else (number, None)]
    )


@dataclass(frozen=True)
class Recipe:
    """The training hyperparameters of a protocol, the same for every method.

    Attributes
    ----------
    model
        Default model of the protocol.
    epochs
        Number of training epochs.
    batch_size
        Number of images per training step.
    lr
        Initial learning rate.
    head_lr_mult
        Learning rate of the model's `head_modules` (by default the classifier) and of the method's
        heads, as a multiple of `lr`.
    momentum
        Momentum of SGD; for the other optimizers, the decay rate of the mean (beta1).
    nesterov
        Whether SGD uses Nesterov momentum; the other optimizers ignore it.
    weight_decay
        Weight decay: an L2 penalty for SGD and Adam, decoupled from the gradient for AdamW and
        LAMB.
    optimizer
        Optimizer: ``"sgd"``, ``"adam"``, ``"adamw"`` or ``"lamb"``. LAMB is timm's, which limits
        the global norm of the gradients to 1.
    milestones : epochs
        Epochs after which the learning rate is divided by 10. If empty, cosine annealing lowers the
        learning rate to `min_lr` over all steps.
    precision
        ``"float32"``; ``"tf32"``, which lets GPUs round the inputs of matrix products and
        convolutions to TF32; or ``"bfloat16"``, which runs the forward pass under autocast. Weights
        are always float32.
    memory_format
        Memory format of images and weights; ``"channels_last"`` is faster on devices whose
        convolutions prefer it.
    compile
        Whether to compile the model with ``torch.compile``.
    threads
        Number of CPU threads per run. It determines the order of summation and so the last bits of
        the result.
    tail : epochs
        Number of final epochs whose weights are kept and over which the median of a metric is
        reported.
    accumulate
        Number of equal parts of a batch whose gradients are added up in one step, to save memory.
        The whole batch is mixed before it is divided; batch norm normalises each part on its own.
    packed : pixels
        Short side of the packed training images that are read instead of the image files
        (``mixbench data pack``); 0 reads the files.
    final_on
        Images on which the ranked model is trained: ``"train"``, the training split; or ``"all"``,
        the official training images, including those held out for validation. Searches use the
        training and the validation split in both cases.
    filter_bias_and_bn
        Whether biases, norms and the parameters that the model exempts (such as the position
        embedding) have no weight decay.
    layer_decay
        Factor of the learning rate from each layer to the one before it; only for timm's models.
    clip_grad
        Norm to which the gradients of all parameters together are clipped; 0 does not clip.
    warmup_epochs : epochs
        Number of first epochs in which the learning rate rises linearly from `warmup_lr`.
    warmup_lr
        Learning rate of the first step, if there is a warm-up.
    min_lr
        Learning rate at which cosine annealing ends.
    ema_decay
        Decay of the exponential moving average (EMA) of the weights, which is validated, kept and
        ranked instead of the trained weights; 0 ranks the trained weights.
    label_smoothing
        Share of every target that is spread evenly over all classes.
    bce_loss
        Whether the loss is the binary cross-entropy, averaged over the classes, instead of the
        cross-entropy.
    bce_target_thresh
        Mixed targets above this value become 1 and others 0 in the binary cross-entropy; 0 leaves
        them as they are.
    auto_augment
        Policy of automatic augmentation: timm's description of a RandAugment, such as
        ``"rand-m9-mstd0.5-inc1"``; ``"trivial"`` for torchvision's TrivialAugmentWide; or empty.
    random_erasing
        Probability that a random box of an image is replaced by noise, as timm's mode ``pixel``.
    aug_repeats
        Number of times that each image of an epoch is used, with different augmentations (repeated
        augmentation). An epoch has as many steps as without, and so fewer different images.
    drop_path
        Largest probability of skipping a residual branch (stochastic depth); only for timm's
        models.
    mix_prob
        Probability that a batch is mixed, or each item with `mix_mode` ``"elem"``.
    mix_mode
        ``"batch"``; ``"elem"``, where every item has a λ of its own, for methods that support it;
        or ``"half"``, where only the first half of each mixed batch is trained on.
    mix_off_epoch : epochs
        Number of epochs after which batches are no longer mixed; 0 mixes in all epochs.
    limit
        Number of images of each split that a trial uses, as many of each class as possible; 0 uses
        all. Trials are not ranked.
    max_steps
        Number of steps after which a trial ends; 0 trains all epochs. The learning rate falls to
        its last value within them.
    """

    model: str
    epochs: Count
    batch_size: Count = 100
    lr: Positive = 0.1
    head_lr_mult: Positive = 1.0
    momentum: Fraction = 0.9
    nesterov: bool = True
    weight_decay: NonNegative = 5e-4
    optimizer: Literal["sgd", "adam", "adamw", "lamb"] = "sgd"
    milestones: tuple[Count, ...] = ()
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    memory_format: Literal["contiguous", "channels_last"] = "contiguous"
    compile: bool = False
    threads: Count = 1
    tail: Count = 10
    accumulate: Count = 1
    packed: CountOrZero = 0
    final_on: Literal["train", "all"] = "train"
    filter_bias_and_bn: bool = False
    layer_decay: PositiveFraction = 1.0
    clip_grad: NonNegative = 0.0
    warmup_epochs: CountOrZero = 0
    warmup_lr: NonNegative = 0.0
    min_lr: NonNegative = 0.0
    ema_decay: FractionBelow1 = 0.0
    label_smoothing: FractionBelow1 = 0.0
    bce_loss: bool = False
    bce_target_thresh: FractionBelow1 = 0.0
    auto_augment: str = ""
    random_erasing: Fraction = 0.0
    aug_repeats: Count = 1
    drop_path: FractionBelow1 = 0.0
    mix_prob: Fraction = 1.0
    mix_mode: Literal["batch", "elem", "half"] = "batch"
    mix_off_epoch: CountOrZero = 0
    limit: CountOrZero = 0
    max_steps: CountOrZero = 0

    def values(self) -> dict[str, "ParameterValue"]:
        """Return the fields by name, without fields of `ADDED` that have their defaults.

        Keys and records of earlier versions, which do not have these fields, stay valid.
        """
        return {
            name: value
            for name, value in asdict(self).items()
            if name not in ADDED or value != USUAL[name]
        }


USUAL: Mapping[str, Any] = {field.name: field.default for field in fields(Recipe)}  # of recipes
# Fields of recipes that say how a protocol is computed; tables state them beside its name.
EXECUTION = frozenset({"precision", "memory_format", "compile", "accumulate", "packed", "final_on"})
TRIAL = ("limit", "max_steps")  # fields of recipes that make a trial, which is not ranked
# Fields of recipes since November 2026. Earlier recipes behave as their defaults say.
ADDED = frozenset(
    {"accumulate", "packed", "final_on"}
    | {"filter_bias_and_bn", "layer_decay", "clip_grad", "warmup_epochs", "warmup_lr", "min_lr"}
    | {"ema_decay", "label_smoothing", "bce_loss", "bce_target_thresh"}
    | {"auto_augment", "random_erasing", "aug_repeats", "drop_path"}
    | {"mix_prob", "mix_mode", "mix_off_epoch"}
    | {"limit", "max_steps"}
)


@dataclass(frozen=True)
class Archive:
    """A published file that contains data or weights.

    Attributes
    ----------
    name
        File name.
    digest
        MD5 or SHA-256 in hexadecimal, distinguished by its length; or a prefix of the SHA-256.
        Empty if the archive is packed anew for each download: its files have digests then.
    url
        Address from which to download the file; empty if it must be downloaded by hand.
    bytes
        Size of the file in bytes; 0 if unknown.
    package
        Name of an installable Python package that contains the file, at the path `name`; empty if
        there is none.
    """

    name: str
    digest: str
    url: str = ""
    bytes: int = 0
    package: str = ""


@dataclass(frozen=True)
class Data:
    """A data set: its source, its layout on disk, and the digests that identify it.

    Attributes
    ----------
    name
        Name of the data set in mixbench; also the name of its default folder.
    version
        Version of the data set that the task uses.
    licence
        Licence of the data.
    url
        Web page of the data set.
    files
        MD5 or SHA-256 of each official file, by its path relative to the data's folder; an empty
        string if no digest is published.
    file_counts
        Official number of files in each folder, by the folder's path; 0 if no number is published.
    content_digests
        Digest of the contents of folders of `file_counts`, by the folder's path: the SHA-256 of
        lines ``SHA-256 of the file, two spaces, path in the folder``, sorted by path.
    suffixes
        Suffixes of the files in the folders of `file_counts` that are read besides images.
    parts
        The part of the data that reads a file or folder, by its path: ``train`` for training and
        validation, or ``test``. ``train list`` and ``test list`` are text files of one part with
        the path of an image or annotation per line; a file of `file_counts` that only one of the
        lists names is read by that part. Both parts read what is not mentioned.
    archives
        Archives from which the files are unpacked.
    manual_steps
        Steps that the user must take before, or instead of, a download.
    package
        Installed Python package that contains the files; empty if there is none.
    folder
        Folder of the files inside the package's folder.
    shares_folder_with
        Name of another data set whose folder this one uses, because the two share files.
    num_train
        Official number of training items, which are captions for captioning; 0 if unknown.
    num_test
        Official number of test images; 0 if unknown.
    num_validation
        Official number of validation images; 0 if they are held out of the training items.
    own
        Whether the images are the user's own, in class folders of any number: nothing is published.
    """

    name: str
    version: str
    licence: str
    url: str
    files: Mapping[str, str] = field(default_factory=dict)
    file_counts: Mapping[str, int] = field(default_factory=dict)
    content_digests: Mapping[str, str] = field(default_factory=dict)
    suffixes: tuple[str, ...] = ()
    parts: Mapping[str, Literal["train", "test", "train list", "test list"]] = field(
        default_factory=dict
    )
    archives: tuple[Archive, ...] = ()
    manual_steps: str = ""
    package: str = ""
    folder: str = "."
    shares_folder_with: str = ""
    num_train: CountOrZero = 0
    num_test: CountOrZero = 0
    num_validation: CountOrZero = 0
    own: bool = False


@dataclass(frozen=True)
class Synthetic:
    """The amount of generated data.

    Attributes
    ----------
    train
        Number of generated training images per class.
    test
        Number of generated test images per class.
    seed
        Seed of the generator.
    protocols
        Protocols that use generated data unless the user gives other data.
    """

    train: Count
    test: Count
    seed: CountOrZero = 0
    protocols: tuple[str, ...] = ()


@dataclass(frozen=True)
class Need:
    """Another cell whose trained weights a method or task uses.

    The needed cell always has the same model and seed.

    Attributes
    ----------
    method
        Method of the needed cell; empty means the same method.
    task
        Task of the needed cell; empty means the same task.
    data
        Data of the needed cell, as a value of ``--data``; empty means the task's default data.
    share
        Names of parameters whose values are passed to the needed method.
    when
        Values of parameters of the method or task that declares the need. The cell is needed only
        if each of these parameters has one of the listed values.
    """

    method: str = ""
    task: str = ""
    data: str = ""
    share: tuple[str, ...] = ()
    when: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
