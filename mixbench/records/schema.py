"""Schema of a cell's record: configuration, stages, metrics, cost and environment. Version 2.

Unknown and missing fields raise an error. A value that could not be measured is null, never 0.
"""

import json
import math
import re
from collections import Counter
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, ValidationError, model_validator

from mixbench.errors import Damaged, one_line
from mixbench.records.items import Items
from mixbench.records.migration import digest_of, migrated
from mixbench.storage.manifest import Hardware, Software
from mixbench.storage.strict_model import (
    LONGEST,
    Line,
    Measured,
    Number,
    StrictModel,
    Time,
    Whole,
    first_error,
)

SCHEMA = "mixbench/record@2"
NUMBERED = re.compile(r'\s*\{\s*"schema":\s*"mixbench/record@(\d{1,9})')
MOST = 10_000  # entries of a list
HUGE = 1e300


def _bounded(value: object) -> object:
    """Refuse a parameter value that no command line could give."""
    values = value if isinstance(value, list | tuple) else (value,)
    if len(values) > MOST:
        raise ValueError(f"must have at most {MOST} values")
    for one in values:
        if isinstance(one, str):
            if not (one.isprintable() and len(one) <= LONGEST):
                raise ValueError("must be one line of printable characters")
        elif not (isinstance(one, int | float) and abs(one) < HUGE):
            raise ValueError(f"must be a text, a number below {HUGE:g}, or a list of these")
    return value


Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32,64}$")]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_]*$", max_length=100)]
SettingName = Annotated[  # of a task and its parameter
    str, StringConstraints(pattern=r"^[a-z_][a-z0-9_]*\.[a-z_][a-z0-9_]*$", max_length=200)
]
ModelName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=150)
]
Distribution = Annotated[  # name and version of a package
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]* [0-9A-Za-z.+!_-]+$", max_length=150),
]
StorePath = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_/.-]*\.(json|safetensors)$", max_length=300),
]
Value = Annotated[Any, AfterValidator(_bounded)]
Channels = Annotated[tuple[Number, ...], Field(min_length=1, max_length=4)]
ONCE: tuple[Literal["curve", "predictions", "compact_predictions"], ...] = (
    "curve",
    "predictions",
    "compact_predictions",
)  # roles of which a record has one artifact at most
Values = Annotated[dict[Name, Value], Field(max_length=MOST)]


class UnitRecord(StrictModel):
    """A method or task as the cell used it.

    Attributes
    ----------
    name
        Name of the method or task.
    version
        Version that the method or task file declares; another version gives other results.
    parameters
        Values of all parameters, by name.
    changed
        Names of the parameters that differ from their defaults.
    source
        Where the file comes from: ``builtin`` for mixbench itself, ``file`` for a path given by the
        user, ``package`` for an installed package.
    code
        Digest of the method or task file, without comments and docstrings.
    distribution
        Installed package that provides the file, with its version; null for other sources.
    """

    name: Name
    version: int = Field(ge=1)
    parameters: Values
    changed: Annotated[list[Name], Field(max_length=MOST)]
    source: Literal["builtin", "file", "package"]
    code: Digest
    distribution: Distribution | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if unknown := [name for name in self.changed if name not in self.parameters]:
            raise ValueError(f"changed must name parameters (got {', '.join(unknown)})")
        if (self.source == "package") != (self.distribution is not None):
            raise ValueError("a method or task of a package, and no other, has a distribution")
        return self


class ContentsRecord(StrictModel):
    """The numbers of files of a data set that are read and skipped.

    Attributes
    ----------
    train
        Number of image files that only training and validation read.
    test
        Number of image files that only the test reads.
    shared
        Number of image files in folders that both read.
    folders
        Number of folders that directly contain images for training.
    skipped
        Number of files that nothing reads, by suffix.
    duplicates
        Number of images with the content of another one, of which one may be for training and the
        other for testing; null if they were not compared, as in published data, and in records from
        before 2026-12.
    """

    train: Whole
    test: Whole
    shared: Whole
    folders: Whole
    skipped: Annotated[dict[Line, Whole], Field(max_length=MOST)]
    duplicates: Whole | None = None


class DataRecord(StrictModel):
    """The data set that the cell read.

    Attributes
    ----------
    name
        Name of the data set, as the task declares it.
    version
        Version of the data set, as the task declares it.
    origin
        ``official`` if the contents of all files match the published ones; ``counted`` if published
        digests and numbers of files match, but not every file has a published digest;
        ``re-encoded`` if the files were converted from a lossy copy of the data set, and are as
        converted; ``modified`` if something does not match; ``own`` if nothing is published to
        compare with; ``synthetic`` if the data was generated.
    digest
        Digest of all files that were read; for generated data, the key of the stage that made it.
    contents
        Numbers of image files and of skipped files; null for generated data, for data without image
        folders, and in records from before 2026-12.
    """

    name: Line
    version: Line
    origin: Literal["official", "counted", "re-encoded", "modified", "own", "synthetic"]
    digest: Digest
    contents: ContentsRecord | None = None


class StageRecord(StrictModel):
    """One stage of the cell, or of a cell that it depends on.

    Attributes
    ----------
    kind
        Kind of work that the stage does.
    key
        Hash of everything that determines the result; it names the stage in the store.
    own
        Whether the stage belongs to this cell; false for a stage of a cell that this one starts
        from.
    state
        ``ran`` if the stage was computed for this cell, ``reused`` if an earlier cell or command
        had computed it.
    started
        Start time of the attempt that finished the stage, in UTC (ISO 8601).
    ended
        End time of the attempt that finished the stage, in UTC (ISO 8601).
    wall_s
        Wall-clock time of all attempts together, in seconds.
    steps
        Number of optimizer steps; null if the stage trains nothing.
    resumed_at_steps
        Steps at which training resumed from a checkpoint.
    adopted_from
        Key of the stage of earlier code that computed the result, which this stage adopted after
        the first and the last steps gave bit-identical weights again; null if it was not adopted.
    """

    kind: Literal["data", "prepare", "train", "tune", "evaluate"]
    key: Digest
    own: bool
    state: Literal["ran", "reused"]
    started: Time
    ended: Time
    wall_s: Measured
    steps: Whole | None
    resumed_at_steps: Annotated[list[Whole], Field(max_length=MOST)]
    adopted_from: Digest | None = None


class MetricRecord(StrictModel):
    """The value of one metric at one point of training.

    Attributes
    ----------
    name
        Name of the metric.
    value
        Value of the metric on the test split, in `unit`.
    unit
        Unit of the value: ``%`` for percentages, otherwise the unit's name.
    higher_is_better
        Whether a higher value is a better result.
    primary
        Whether leaderboards rank by this metric; exactly one metric of a task is primary.
    trivial_baseline
        Whether the value is the primary metric of a trivial baseline that does not use the data.
    detail
        Whether the metric is only in the record; tables omit it.
    at
        Point of training. ``last``: after the last epoch, which leaderboards rank by;
        ``best_validation``: after the epoch with the best validation result; ``median_tail``: the
        median over the last epochs.
    n
        Number of test items.
    stderr
        Standard error over the test items, in `unit`; null if the metric is not a mean over items.
    by_class
        Value for each class by class name, at ``last``, if the task reports it; null for a class
        without a value.
    items
        Primary metric of each test item, if the metric is their mean.
    """

    name: Name
    value: Number
    unit: Line
    higher_is_better: bool
    primary: bool
    trivial_baseline: bool = False
    detail: bool = False
    at: Literal["last", "best_validation", "median_tail"]
    n: Annotated[Whole, Field(ge=1)]
    stderr: Measured | None
    by_class: dict[Line, Number | None] | None = None
    items: Items | None = None


class Tuning(StrictModel):
    """The result of a grid search over recipe values.

    Attributes
    ----------
    grid
        Candidate values of each tuned recipe field; every combination is trained.
    trainings
        Number of combinations trained. This budget is the same for every row of a table.
    diverged
        Number of trainings that diverged.
    chosen
        Recipe values of the best combination.
    value
        Primary metric of the best combination on the validation split, after the last epoch.
    """

    grid: Annotated[dict[Name, Annotated[list[Value], Field(min_length=1)]], Field(min_length=1)]
    trainings: Annotated[Whole, Field(ge=2)]
    diverged: Whole
    chosen: Values
    value: Number

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.chosen.keys() != self.grid.keys():
            raise ValueError("chosen must have the names of the grid")
        if self.trainings != math.prod(map(len, self.grid.values())):
            raise ValueError("trainings must be the number of combinations of the grid")
        return self


class ReferenceRecord(StrictModel):
    """A published result for this cell's method and model.

    Attributes
    ----------
    metric
        Name of the metric that was published.
    value
        Published value, in the metric's unit.
    std
        Published standard deviation over seeds, in the metric's unit; null if not stated.
    num_seeds
        Number of runs behind the published value; null if not stated.
    citation
        The publication.
    where
        Table, row and column in the publication.
    remark
        What a reader must know before comparing; empty if there is nothing to note.
    """

    metric: Name
    value: Number
    std: Measured | None
    num_seeds: Whole | None
    citation: Line
    where: Line
    remark: Line = ""


class Cost(StrictModel):
    """The compute cost of the cell.

    Attributes
    ----------
    wall_s_marginal
        Wall-clock time of the stages computed for this cell, in seconds, without process start-up.
    wall_s_total
        Wall-clock time of all stages that the cell depends on, in seconds: reused stages and
        searches are included, process start-up is not.
    train_s
        Time spent in training steps, over all stages that the cell depends on, in seconds.
    eval_s
        Time spent in validation during training, over all stages that the cell depends on, in
        seconds.
    gpu_hours_marginal
        GPU-hours of the stages computed for this cell: their time multiplied by the number of GPUs
        that they held.
    gpu_hours_total
        GPU-hours of all stages that the cell depends on, reused stages and searches included.
    images
        Number of images passed forward and backward, over all training stages that the cell
        depends on. A search counts none, because it has no backward pass.
    parameters
        Number of trainable parameters of the model at test time.
    extra_parameters
        Number of trainable parameters that the method adds during training.
    peak_host_gib
        Largest host memory that one stage used, in GiB.
    peak_gpu_gib
        Largest GPU memory that one stage used, in GiB; null if no GPU was used.
    energy_kwh
        Energy of the GPUs over all stages that used one, in kWh; null if one was not measured.
    """

    wall_s_marginal: Measured
    wall_s_total: Measured
    train_s: Measured
    eval_s: Measured
    gpu_hours_marginal: Measured
    gpu_hours_total: Measured
    images: Whole
    parameters: Whole
    extra_parameters: Whole
    peak_host_gib: Measured
    peak_gpu_gib: Measured | None
    energy_kwh: Measured | None


ArtifactRole = Literal[
    "weights", "curve", "predictions", "compact_predictions", "metrics", "buffers", "search"
]


class Artifact(StrictModel):
    """A file in the store that belongs to the cell.

    Attributes
    ----------
    role
        Kind of content.
    path
        Path of the file, relative to the store.
    sha256
        SHA-256 digest of the file.
    bytes
        Size of the file, in bytes.
    """

    role: ArtifactRole
    path: StorePath
    sha256: Digest
    bytes: Whole

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        suffix = ".json" if self.role in {"curve", "metrics", "search"} else ".safetensors"
        if not self.path.endswith(suffix):
            raise ValueError(f"path must end with {suffix} for {self.role}")
        return self


class Record(StrictModel):
    """The result of one cell: one method on one task, with one model and one seed.

    Attributes
    ----------
    schema_
        Name and version of the record format.
    cell
        Name of the cell: task, method, model, seed and the first 8 digits of its key.
    created
        Time at which the record was written, in UTC (ISO 8601).
    status
        ``ok`` if the cell has a result, ``failed`` if a stage failed, ``diverged`` if a
        loss was not finite, ``skipped`` if a stage that it depends on failed.
    reason
        Why the cell has no result; null if the status is ``ok``.
    log
        Path of the failed stage's log, relative to the store; null if there is none.
    method
        The method, with all its parameters.
    task
        The task, with all its parameters.
    base_task
        The task whose models an evaluation evaluates, with all its parameters; null for other tasks
        and in records from before 2026-12.
    model
        Name of the model.
    protocol
        Name of the task's protocol; ``custom`` if its recipe was changed.
    recipe
        Values of all recipe fields, by name.
    pretraining
        Values that the user set for the tasks whose models the training starts from, by task and
        parameter, as in ``imagenet.epochs``; absent without any.
    tuning
        Result of the grid search that chose recipe values; null if nothing was tuned.
    seed
        Seed of the initial weights, the batches, the augmentations and all other random draws.
    data
        The data set that was read.
    stages
        Stages of the cell and of the cells that it depends on, in order of execution.
    metrics
        Metrics on the test split, at each point of training.
    normalization
        Mean and standard deviation by channel with which the initial weights see images, if they
        are timm's and differ from those of the task; else null.
    held_out
        Fraction of the official training images that the model was not trained on, for validation;
        null if no stage trained it.
    train_accuracy
        Accuracy in percent on at most 2,000 training images after the last epoch, neither mixed nor
        augmented; null without a training, if the images do not have one class each, and in records
        from before 2026-12.
    references
        Published results to compare with.
    cost
        Time, memory, energy and other costs; null if the status is not ``ok``.
    hardware
        Machine that ran the training, or the evaluation if nothing was trained; null if the status
        is not ``ok``.
    software
        Software versions used for the training, or for the evaluation if nothing was trained; null
        if the status is not ``ok``.
    artifacts
        Files in the store that belong to the cell.
    command
        Words of the command line, without the path of the store.
    rescored
        Digest of the record whose predictions were scored again; null for all other records.
    """

    schema_: Literal["mixbench/record@2"] = Field(alias="schema")
    cell: Annotated[Line, Field(min_length=1)]
    created: Time
    status: Literal["ok", "failed", "diverged", "skipped"]
    reason: Line | None
    log: Line | None
    method: UnitRecord
    task: UnitRecord
    base_task: UnitRecord | None = None
    model: ModelName
    protocol: Name
    recipe: Values
    pretraining: Annotated[dict[SettingName, Line], Field(max_length=MOST)] = Field(
        default_factory=dict
    )
    tuning: Tuning | None = None
    seed: Whole
    data: DataRecord
    stages: Annotated[list[StageRecord], Field(max_length=MOST)]
    metrics: Annotated[list[MetricRecord], Field(max_length=MOST)]
    normalization: tuple[Channels, Channels] | None = None
    held_out: float | None = Field(default=None, ge=0, lt=1)
    train_accuracy: float | None = Field(default=None, ge=0, le=100)
    references: Annotated[list[ReferenceRecord], Field(max_length=MOST)]
    cost: Cost | None
    hardware: Hardware | None
    software: Software | None
    artifacts: Annotated[list[Artifact], Field(max_length=MOST)]
    command: Annotated[list[Line], Field(max_length=MOST)]
    rescored: Digest | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        ranked = [m for m in self.metrics if m.primary and m.at == "last"]
        if self.status == "ok" and (len(ranked) != 1 or self.cost is None):
            raise ValueError("an 'ok' record needs a cost and exactly one primary metric at 'last'")
        if self.status != "ok" and not self.reason:
            raise ValueError("a record whose status is not 'ok' needs a reason")
        if self.status != "ok" and self.metrics:
            raise ValueError("a record whose status is not 'ok' has no metrics")
        places = Counter((metric.name, metric.at) for metric in self.metrics)
        if twice := next((place for place, number in places.items() if number > 1), None):
            raise ValueError(f"{' at '.join(twice)} is there twice")
        roles = Counter(artifact.role for artifact in self.artifacts)
        paths = {artifact.path for artifact in self.artifacts}
        if len(paths) < len(self.artifacts) or any(roles[role] > 1 for role in ONCE):
            raise ValueError(f"artifacts must be different, with one {' and one '.join(ONCE)}")
        return self

    @property
    def primary(self) -> MetricRecord:
        """The primary metric after the last epoch; only records with status ``ok`` have one."""
        return next(m for m in self.metrics if m.primary and m.at == "last")

    @property
    def digest(self) -> str:
        """SHA-256 of the text of the file that the record was read from."""
        return digest_of(self.written)

    @property
    def written(self) -> str:
        """The text of the record's file; fields that the file does not set are omitted."""
        return self.model_dump_json(by_alias=True, indent=1, exclude_unset=True) + "\n"


def parse(text: str, name: str) -> Record:
    """Return the record in a JSON text; a record of an older schema is migrated.

    Parameters
    ----------
    text
        JSON text of the record.
    name
        Name of the text in error messages: the path of its file.

    Raises
    ------
    Damaged
        If the text is not a valid record; the message names the first invalid field.
    """
    if (found := NUMBERED.match(text)) and int(found[1]) > int(SCHEMA.rpartition("@")[2]):
        newer = f"was written by a newer mixbench (record@{found[1]})"
        raise Damaged(f"{name} {newer}: update mixbench.")
    try:
        return Record.model_validate_json(migrated(text, name))
    except ValidationError as error:
        said = one_line(first_error(error), 300)
        raise Damaged(f"{name} is not a valid record: {said}.") from error


def schema_text() -> str:
    """Return the text of leaderboards/record.schema.json: the JSON schema of a record."""
    return json.dumps(Record.model_json_schema(by_alias=True), indent=1) + "\n"


def to_json(record: Record) -> str:
    """Return the text of a record's file."""
    return record.model_dump_json(by_alias=True, indent=1) + "\n"
