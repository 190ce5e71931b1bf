"""What a finished stage says about itself: ``manifest.json`` in its folder."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Ge

from mixbench.storage.files import Typed
from mixbench.storage.model import StrictModel
from mixbench.storage.spec import StageSpec

NonNegative = Annotated[float, Ge(0)]


class Hardware(StrictModel):
    """The machine that trained.

    Attributes
    ----------
    cpu
        The model of its CPU.
    cpu_cores
        CPU cores that the run could use.
    ram_gib
        Memory of the machine, in GiB.
    gpu
        The model of its GPUs; null if none was used.
    gpus
        GPUs that took part; null where that was not recorded.
    gpu_gib
        Memory of one GPU, in GiB; null if none was used.
    """

    cpu: str
    cpu_cores: int
    ram_gib: NonNegative
    gpu: str | None
    gpus: Annotated[int, Ge(0)] | None = None
    gpu_gib: NonNegative | None


class Software(StrictModel):
    """The software that trained.

    Attributes
    ----------
    python
        Version of Python.
    os
        Name and version of the operating system.
    mixbench
        Version of mixbench.
    commit
        The commit of mixbench; null outside a checkout.
    dirty
        Whether the checkout differed from that commit.
    packages
        Versions of the libraries that compute, by name.
    """

    python: str
    os: str
    mixbench: str
    commit: str | None
    dirty: bool | None
    packages: dict[str, str]


@dataclass(frozen=True)
class TuningResult:
    """The choice among the candidates of a grid search.

    Attributes
    ----------
    metric
        The primary metric, on the validation split.
    chosen
        The best candidate.
    value
        Its value of the metric.
    values
        The value of every candidate that did not diverge.
    diverged
        The candidates that did.
    """

    metric: str
    value: float
    chosen: str
    values: Mapping[str, float]
    diverged: tuple[str, ...]


@dataclass(frozen=True)
class TrainingResult:
    """Which epochs of a training are reported.

    Attributes
    ----------
    best
        The epoch with the best validation result; 0 before the first one.
    tail
        The last epochs, whose weights are kept.
    steps
        Optimiser steps of the whole training.
    tuning
        None where nothing was tuned.
    """

    best: int
    tail: tuple[int, ...]
    steps: int
    tuning: TuningResult | None = None


@dataclass(frozen=True)
class StageCost:
    """What a stage cost.

    Attributes
    ----------
    wall_s : seconds
        Of work, over all attempts, without the start of processes.
    gpu_s : seconds
        The same times the GPUs that it held.
    train_s, eval_s : seconds
        Of training steps, and of validation between them.
    images
        Images passed forward and backward.
    parameters, extra_parameters
        Trainable parameters of the model and of the method; None where none was evaluated.
    peak_host_gib, peak_gpu_gib
        The most memory that the process held.
    energy_kwh
        None where no counter was read.
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
    """A file of a finished stage."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Manifest:
    """A finished stage.

    Attributes
    ----------
    started, ended
        UTC, in ISO 8601, of the attempt that finished it.
    resumed_at_steps
        The steps at which it continued from a checkpoint.
    training
        None for a stage that trains nothing.
    files
        By their paths in the stage's folder.
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
    files: Mapping[str, FileDigest] = field(default_factory=dict)


MANIFESTS = Typed(Manifest)
