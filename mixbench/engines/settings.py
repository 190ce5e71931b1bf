"""The settings of the engines, which the user gives in one TOML file.

::

    engine = "slurm"
    timeout = "12h"             # time limit per stage
    retries = 2

    [gpus_per_cell]             # of single tasks; --gpus-per-cell holds for the others
    imagenet = 8

    [local]
    gpus = ["0", "1"]
    jobs_per_gpu = 2

    [slurm]
    partition = "gpu"
    time = "12:00:00"
    options = ["--qos=long"]
    setup = ["module load cuda"]

    [ray]
    address = "auto"
"""

import os
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from mixbench.storage.strict_model import StrictModel
from mixbench.storage.toml import read_toml

FILE, VARIABLE = "mixbench.toml", "MIXBENCH_SETTINGS"
UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}


class LocalSettings(StrictModel):
    """The ``[local]`` table: settings of the engine that runs stages on this machine.

    Attributes
    ----------
    gpus
        Indices of the GPUs to use; empty for all of them.
    jobs_per_gpu
        Number of stages that share one GPU of this machine.
    """

    gpus: tuple[str, ...] = ()
    jobs_per_gpu: Annotated[int, Field(ge=1)] = 1


class SlurmSettings(StrictModel):
    """The ``[slurm]`` table: settings of the engine that submits stages as SLURM jobs.

    Attributes
    ----------
    partition
        Partition of every job (``--partition`` of sbatch); empty for the cluster's default.
    account
        Account that every job is charged to (``--account`` of sbatch); empty for the default.
    time
        Time limit of a stage's job (``--time`` of sbatch), as in ``12:00:00``; empty for the
        partition's limit. `timeout` overrides it.
    memory
        Memory of a stage's job on each node (``--mem`` of sbatch); empty for the default.
    cpus
        CPU cores of a stage's job on each node (``--cpus-per-task`` of sbatch).
    gres
        Generic resources of a stage's job (``--gres`` of sbatch), as in ``gpu:a100:1``. If empty,
        a job requests as many GPUs as a cell uses, if the cluster has any, or shards of a GPU if
        stages share GPUs.
    jobs_per_gpu
        Number of stages that share one GPU; above 1 needs a cluster with GPU shards.
    nodes
        Number of nodes that train one model together.
    options
        Further sbatch options for the jobs of stages.
    setup
        Shell commands that every job runs first.
    launcher
        Further sbatch options for the job that `--detach` submits, which does not use `options`.
    max_jobs
        Maximum number of stages that are in the queue at a time.
    poll_s
        Seconds between two queries of the queue.
    settle_s
        Seconds to wait, after a job left the queue, for its files to appear on the shared disk.
    """

    partition: str = ""
    account: str = ""
    time: str = ""
    memory: str = ""
    cpus: Annotated[int, Field(ge=1)] = 1
    gres: str = ""
    jobs_per_gpu: Annotated[int, Field(ge=1)] = 1
    nodes: Annotated[int, Field(ge=1)] = 1
    options: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    launcher: tuple[str, ...] = ()
    max_jobs: Annotated[int, Field(ge=1)] = 200
    poll_s: Annotated[float, Field(gt=0)] = 10.0
    settle_s: Annotated[float, Field(ge=0)] = 30.0


class RaySettings(StrictModel):
    """The ``[ray]`` table: settings of the engine that runs stages on a Ray cluster.

    Attributes
    ----------
    address
        Address of the cluster's head node; ``auto`` for the cluster that this machine belongs to,
        ``local`` to start a cluster on this machine.
    jobs_per_gpu
        Number of stages that share one GPU of the cluster.
    nodes
        Number of cluster nodes that train one model together.
    cpus
        CPU cores of a stage, or of each process of a training on several nodes.
    """

    address: str = "local"
    jobs_per_gpu: Annotated[int, Field(ge=1)] = 1
    nodes: Annotated[int, Field(ge=1)] = 1
    cpus: Annotated[float, Field(gt=0)] = 1.0


class Settings(StrictModel):
    """The settings file as a whole.

    Attributes
    ----------
    engine
        Engine that runs the stages, unless ``--engine`` is given.
    timeout
        Time limit per stage, in seconds or as a text with units, such as 1h30m; none if left out.
    retries
        Number of times a stage is restarted after its process was killed or its node was lost.
    gpus_per_cell
        Number of GPUs (without GPUs, processes) that train a model of a task together, by task;
        other tasks have that of ``--gpus-per-cell``.
    local
        Settings of the engine that runs stages on this machine.
    slurm
        Settings of the SLURM engine.
    ray
        Settings of the Ray engine.
    """

    engine: Literal["local", "slurm", "ray"] = "local"
    timeout: Annotated[float, Field(gt=0)] | None = None
    retries: Annotated[int, Field(ge=0)] = 2
    gpus_per_cell: dict[str, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    local: LocalSettings = LocalSettings()
    slurm: SlurmSettings = SlurmSettings()
    ray: RaySettings = RaySettings()

    @field_validator("timeout", mode="before")
    @classmethod
    def _seconds(cls, value: object) -> object:
        return seconds_of(value) if isinstance(value, str) else value


def seconds_of(text: str) -> float:
    """Return a time span, written as in 90, 90s, 1h30m or 2d, in seconds.

    Raises
    ------
    ValueError
        If the text is not a time span.
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)([dhms])", text.replace(" ", ""))
    if parts and "".join(n + u for n, u in parts) == text.replace(" ", ""):
        return sum(float(number) * UNITS[unit] for number, unit in parts)
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"must be a time span, such as 90s, 1h30m or 2d (got {text!r})") from error


def read_settings_file(path: Path | None) -> Settings:
    """Read the settings from `path`, the file in $MIXBENCH_SETTINGS, or ./mixbench.toml.

    The first of them that is given is read. Without any, all settings have their defaults.

    Raises
    ------
    UsageError
        If the file cannot be read, or a setting is unknown or invalid.
    """
    named = path or (Path(os.environ[VARIABLE]) if VARIABLE in os.environ else None)
    place = named or Path(FILE)
    if named is None and not place.exists():
        return Settings()
    return read_toml(place, Settings, "settings")
