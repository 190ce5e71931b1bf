"""What a user settles about engines, in one TOML file.

::

    engine = "slurm"
    timeout = "12h"             # of a stage
    retries = 2

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

from mixbench.storage.model import StrictModel
from mixbench.storage.toml import read_toml

FILE, VARIABLE = "mixbench.toml", "MIXBENCH_SETTINGS"
UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}


class LocalSettings(StrictModel):
    """``[local]``, of this machine.

    Attributes
    ----------
    gpus
        The ones to use, by their indices; all, if none is named.
    jobs_per_gpu
        How many stages share one.
    """

    gpus: tuple[str, ...] = ()
    jobs_per_gpu: Annotated[int, Field(ge=1)] = 1


class SlurmSettings(StrictModel):
    """``[slurm]``, of a SLURM cluster: what every job asks for.

    Attributes
    ----------
    partition, account, time, memory, cpus
        As sbatch's options of these names; ``memory`` is its ``--mem``, and an empty one is left
        out. `timeout`, where it is given, comes before ``time``.
    gres
        In SLURM's words, as ``gpu:a100:1``; empty asks for as many GPUs as a cell has, where the
        cluster has any, or for shards of them where stages share.
    jobs_per_gpu
        How many stages share a GPU, where the cluster has shards.
    nodes
        That train one model together.
    options
        More options of sbatch.
    setup
        Lines of shell that a job begins with.
    launcher
        Options of sbatch for the job that `--detach` submits, instead of those of stages.
    max_jobs
        In the queue at a time.
    poll_s
        Seconds between two looks at the queue.
    settle_s
        Seconds given to the shared disk to show what a job wrote that is gone from the queue.
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
    """``[ray]``, of a Ray cluster.

    Attributes
    ----------
    address
        Of its head, or ``auto`` for the one that this machine is part of; ``local`` starts one.
    jobs_per_gpu
        How many stages share a GPU.
    cpus
        Of a stage; of a training on several nodes, of each of its processes.
    nodes
        That train one model together.
    """

    address: str = "local"
    jobs_per_gpu: Annotated[int, Field(ge=1)] = 1
    nodes: Annotated[int, Field(ge=1)] = 1
    cpus: Annotated[float, Field(gt=0)] = 1.0


class Settings(StrictModel):
    """The whole file.

    Attributes
    ----------
    engine
        Where stages run, if ``--engine`` does not say.
    timeout
        Of a stage, in seconds; a text may name units, as 1h30m.
    retries
        How often a lost stage is started again.
    local, slurm, ray
        Of each engine.
    """

    engine: Literal["local", "slurm", "ray"] = "local"
    timeout: Annotated[float, Field(gt=0)] | None = None
    retries: Annotated[int, Field(ge=0)] = 2
    local: LocalSettings = LocalSettings()
    slurm: SlurmSettings = SlurmSettings()
    ray: RaySettings = RaySettings()

    @field_validator("timeout", mode="before")
    @classmethod
    def _seconds(cls, value: object) -> object:
        return seconds_of(value) if isinstance(value, str) else value


def seconds_of(text: str) -> float:
    """Return a time span in seconds: 90, 90s, 1h30m, 2d.

    Raises
    ------
    ValueError
        If it is none.
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)([dhms])", text.replace(" ", ""))
    if parts and "".join(n + u for n, u in parts) == text.replace(" ", ""):
        return sum(float(number) * UNITS[unit] for number, unit in parts)
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"must be a time span, as in 90s, 1h30m or 2d (got {text!r})") from error


def read_settings_file(path: Path | None) -> Settings:
    """Return the settings of a file: the given one, that of the environment, or ./mixbench.toml.

    Raises
    ------
    UsageError
        If it cannot be read, or a setting is unknown or has another form.
    """
    named = path or (Path(os.environ[VARIABLE]) if VARIABLE in os.environ else None)
    place = named or Path(FILE)
    if named is None and not place.exists():
        return Settings()
    return read_toml(place, Settings, "settings")
