"""The parts of a record. Unknown and missing fields are refused."""

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from mixbench.records.items import Items, Strict

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32,64}$")]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_]*$")]
NonNegative = Annotated[float, Field(ge=0)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class UnitRecord(Strict):
    """A method or task as it took part.

    Attributes
    ----------
    name, version
        As its file has them; another version gives other results.
    parameters
        All of them, with their values.
    changed
        The parameters that differ from their defaults.
    source
        Where its file is from: mixbench, a path that was named, or an installed package.
    code
        Digest of the unit's own file, without comments and docstrings.
    distribution
        The installed package that brought it, with its version.
    """

    name: Name
    version: int = Field(ge=1)
    parameters: dict[str, Any]
    changed: list[str]
    source: Literal["builtin", "file", "package"]
    code: Digest
    distribution: str | None = None


class DataRecord(Strict):
    """Which data was read.

    Attributes
    ----------
    name, version
        As the task calls it.
    origin
        ``official`` if all checksums are the published ones, ``synthetic`` if it was generated.
    digest
        Of all that was read.
    """

    name: str
    version: str
    origin: Literal["official", "modified", "synthetic"]
    digest: Digest


class StageRecord(Strict):
    """One stage of the cell, or of a cell that it rests on.

    Attributes
    ----------
    kind
        What was done.
    key
        A hash of all that decides the result: the stage's name in the store.
    own
        False for a stage of another cell that this one starts from.
    state
        ``reused`` if an earlier cell or command had computed it.
    started, ended
        UTC, in ISO 8601.
    wall_s
        Seconds of work, over all attempts.
    steps
        Of training; null where nothing is trained.
    resumed_at_steps
        At which steps it went on from a checkpoint.
    """

    kind: Literal["data", "prepare", "train", "tune", "evaluate"]
    key: Digest
    own: bool
    state: Literal["ran", "reused"]
    started: str
    ended: str
    wall_s: NonNegative
    steps: int | None
    resumed_at_steps: list[int]


class MetricRecord(Strict):
    """One number.

    Attributes
    ----------
    name, value, unit, higher_is_better
        What it is, and which direction is good.
    primary
        Whether leaderboards rank by it; one of a task does.
    at
        ``last`` is after the last epoch, which leaderboards rank; ``best_validation`` is at the
        epoch with the best validation result; ``median_tail`` is over the last epochs.
    floor
        Whether it is what the primary metric would be without looking at the data.
    detail
        Whether tables leave it out.
    n
        Test items.
    stderr
        Over the items; null where the metric is no mean over items.
    by_class
        The metric of every class by its name, at ``last``, where a task tells it; null for a class
        that has none.
    items
        The primary metric of every test item, where it is their mean.
    """

    name: Name
    value: Finite
    unit: str
    higher_is_better: bool
    primary: bool
    floor: bool = False
    detail: bool = False
    at: Literal["last", "best_validation", "median_tail"]
    n: int = Field(ge=1)
    stderr: NonNegative | None
    by_class: dict[str, Finite | None] | None = None
    items: Items | None = None


class Tuning(Strict):
    """The choice among trainings that differ by their recipes alone.

    Attributes
    ----------
    grid
        The values that were tried, all with all.
    trainings
        How many that are: the budget, the same for every row of a table.
    diverged
        How many of them came to nothing.
    chosen
        The best candidate's values, by `value` of the primary metric after its last epoch on
        images held out of training.
    """

    grid: dict[str, list[Any]]
    trainings: int = Field(ge=2)
    diverged: int = Field(ge=0)
    chosen: dict[str, Any]
    value: Finite


class ReferenceRecord(Strict):
    """A published number for this cell's method and model.

    Attributes
    ----------
    metric, value
        Which, in the metric's unit.
    deviation, num_seeds
        Over how many runs; null where it is not said.
    citation, where, remark
        The publication, the place in it, and what to know.
    """

    metric: Name
    value: Finite
    deviation: NonNegative | None
    num_seeds: int | None
    citation: str
    where: str
    remark: str = ""


class Cost(Strict):
    """What the cell cost.

    Attributes
    ----------
    wall_s_marginal, wall_s_total
        Seconds of work, without process start-up; marginal counts only what was computed for this
        cell, total also every reused stage that it rests on, searches included.
    train_s, eval_s
        Seconds of its trainings: of steps, and of validation between them.
    gpu_hours_marginal, gpu_hours_total
        The same work, times the GPUs that it held.
    images
        Passed forward and backward, over all its training stages; a search passes none backward.
    parameters
        Trained numbers of the model, as it is at test.
    extra_parameters
        What the method adds to them in training.
    peak_host_gib, peak_gpu_gib
        The most memory that a stage held.
    energy_kwh
        Null where no counter was read.
    """

    wall_s_marginal: NonNegative
    wall_s_total: NonNegative
    train_s: NonNegative
    eval_s: NonNegative
    gpu_hours_marginal: NonNegative
    gpu_hours_total: NonNegative
    images: int = Field(ge=0)
    parameters: int = Field(ge=0)
    extra_parameters: int = Field(ge=0)
    peak_host_gib: NonNegative
    peak_gpu_gib: NonNegative | None
    energy_kwh: NonNegative | None


class Hardware(Strict):
    """The machine that trained.

    Attributes
    ----------
    cpu, cpu_cores, ram_gib
        Its processor, cores that the run might use, and memory.
    gpu, gpu_gib
        The kind of its GPUs and the memory of one; null where none computed.
    gpus
        How many took part; null where that was not noted.
    """

    cpu: str
    cpu_cores: int
    ram_gib: NonNegative
    gpu: str | None
    gpus: int | None = Field(default=None, ge=0)
    gpu_gib: NonNegative | None


class Software(Strict):
    """The software that trained.

    Attributes
    ----------
    python, os, mixbench
        Versions.
    commit
        Of mixbench; null outside a checkout.
    dirty
        Whether the checkout differed from that commit.
    packages
        The versions of the libraries that compute.
    """

    python: str
    os: str
    mixbench: str
    commit: str | None
    dirty: bool | None
    packages: dict[str, str]


class Artifact(Strict):
    """A file that the store keeps.

    Attributes
    ----------
    role
        What it holds.
    path, sha256, bytes
        Where in the store it lies, its digest and its size.
    """

    role: Literal["weights", "curve", "predictions", "metrics", "buffers", "search"]
    path: str
    sha256: Digest
    bytes: int = Field(ge=0)
