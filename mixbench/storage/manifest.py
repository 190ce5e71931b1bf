"""The manifest of a finished stage: ``manifest.json`` in its folder."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mixbench.storage.files import Typed
from mixbench.storage.spec import StageSpec
from mixbench.storage.strict_model import Line, Measured, StrictModel, Whole


class Hardware(StrictModel):
    """The hardware that a computation ran on.

    Attributes
    ----------
    cpu
        Model name of the CPU.
    cpu_cores
        Number of CPU cores of the machine.
    ram_gib
        Memory of the machine, in GiB.
    gpu
        Model name of the GPUs; null if no GPU was used.
    gpus
        Number of GPUs used; null if it was not recorded.
    gpu_gib
        Memory of one GPU, in GiB; null if no GPU was used.
    """

    cpu: Line
    cpu_cores: Whole
    ram_gib: Measured
    gpu: Line | None
    gpus: Whole | None = None
    gpu_gib: Measured | None


class Software(StrictModel):
    """The software versions that a computation used.

    Attributes
    ----------
    python
        Version of Python.
    os
        Name and version of the operating system.
    mixbench
        Version of mixbench.
    commit
        Git commit of mixbench; null if it did not run from a checkout.
    dirty
        Whether the checkout had uncommitted changes; null if mixbench did not run from a checkout.
    packages
        Versions of the numerical libraries, by package name.
    """

    python: Line
    os: Line
    mixbench: Line
    commit: Line | None
    dirty: bool | None
    packages: dict[Line, Line]


@dataclass(frozen=True)
class TuningResult:
    """The result of a grid search.

    Attributes
    ----------
    metric
        Name of the task's primary metric, by which the best candidate is selected.
    value
        Value of the metric for the best candidate, on the validation split.
    chosen
        Label of the best candidate.
    values
        Validation values of all candidates that did not diverge, by label.
    diverged
        Labels of the candidates that diverged.
    """

    metric: str
    value: float
    chosen: str
    values: Mapping[str, float]
    diverged: tuple[str, ...]


@dataclass(frozen=True)
class TrainingResult:
    """The reported epochs of a training.

    Attributes
    ----------
    best
        Epoch with the best validation result, counted from 1; 0 if no epoch has been validated.
    tail
        Numbers of the last epochs, whose weights are saved.
    steps
        Number of optimizer steps of the whole training.
    tuning
        Result of the grid search; None if the training was not tuned.
    train_accuracy
        Accuracy in percent on at most 2,000 training images after the last epoch, neither mixed nor
        augmented; None if the images do not have one class each.
    """

    best: int
    tail: tuple[int, ...]
    steps: int
    tuning: TuningResult | None = None
    train_accuracy: float | None = None


@dataclass(frozen=True)
class StageCost:
    """The cost of a stage.

    Attributes
    ----------
    wall_s : seconds
        Wall-clock time of all attempts, without the start-up of processes.
    gpu_s : seconds
        Wall-clock time multiplied by the number of GPUs held.
    train_s : seconds
        Time spent in training steps.
    eval_s : seconds
        Time spent in validation during training.
    images
        Number of images passed forward and backward.
    parameters
        Number of trainable parameters of the model; None if the stage evaluates no model.
    extra_parameters
        Number of trainable parameters of the method; None if the stage evaluates no model.
    peak_host_gib : GiB
        Peak resident memory of the process.
    peak_gpu_gib : GiB
        Peak GPU memory allocated by the process; None if it used no GPU.
    energy_kwh : kWh
        Energy used by the GPUs; None if it was not measured for the whole stage.
    """

    wall_s: float
    gpu_s: float = 0.0
    train_s: float = 0.0
    eval_s: float = 0.0
    images: int = 0
    parameters: int | None = None
    extra_parameters: int | None = None
    peak_host_gib: float = 0.0
    peak_gpu_gib: float | None = None
    energy_kwh: float | None = None


@dataclass(frozen=True)
class FileDigest:
    """The SHA-256 digest and size in bytes of a file of a finished stage."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Manifest:
    """The description of a finished stage.

    Attributes
    ----------
    key
        Key of the stage.
    spec
        Stage with its execution options.
    started
        Time at which the successful attempt started, in UTC and ISO 8601 format.
    ended
        Time at which the successful attempt ended, in UTC and ISO 8601 format.
    resumed_at_steps
        Steps at which attempts resumed from a checkpoint.
    hardware
        Hardware that the successful attempt ran on.
    software
        Software versions that the successful attempt used.
    cost
        Cost of the stage.
    training
        Reported epochs; None for a stage that trains no model.
    adopted_from
        Key of the stage of earlier code that computed the result; None if this stage did.
    files
        Digests of the stage's files, by path relative to the stage's folder.
    """

    key: str
    spec: StageSpec
    started: str
    ended: str
    resumed_at_steps: tuple[int, ...]
    hardware: Hardware
    software: Software
    cost: StageCost
    training: TrainingResult | None = None
    adopted_from: str | None = None
    files: Mapping[str, FileDigest] = field(default_factory=dict)


MANIFESTS = Typed(Manifest)
