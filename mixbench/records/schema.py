"""The record of a cell: what ran, on what, with which numbers, at what cost. Schema 2.

Unknown and missing fields are refused; what could not be measured is null, never 0.
"""

import json
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, ValidationError, model_validator

from mixbench.errors import Damaged
from mixbench.records.items import Items
from mixbench.records.migration import digest_of, migrated
from mixbench.storage.manifest import Hardware, Software
from mixbench.storage.model import StrictModel

SCHEMA = "mixbench/record@2"

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32,64}$")]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_]*$")]
NonNegative = Annotated[float, Field(ge=0)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class UnitRecord(StrictModel):
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


class DataRecord(StrictModel):
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


class StageRecord(StrictModel):
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


class MetricRecord(StrictModel):
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
    trivial_baseline
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
    trivial_baseline: bool = False
    detail: bool = False
    at: Literal["last", "best_validation", "median_tail"]
    n: int = Field(ge=1)
    stderr: NonNegative | None
    by_class: dict[str, Finite | None] | None = None
    items: Items | None = None


class Tuning(StrictModel):
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


class ReferenceRecord(StrictModel):
    """A published number for this cell's method and model.

    Attributes
    ----------
    metric, value
        Which, in the metric's unit.
    std, num_seeds
        Over how many runs; null where it is not said.
    citation, where, remark
        The publication, the place in it, and what to know.
    """

    metric: Name
    value: Finite
    std: NonNegative | None
    num_seeds: int | None
    citation: str
    where: str
    remark: str = ""


class Cost(StrictModel):
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


ArtifactRole = Literal["weights", "curve", "predictions", "metrics", "buffers", "search"]


class Artifact(StrictModel):
    """A file that the store keeps.

    Attributes
    ----------
    role
        What it holds.
    path, sha256, bytes
        Where in the store it lies, its digest and its size.
    """

    role: ArtifactRole
    path: str
    sha256: Digest
    bytes: int = Field(ge=0)


class Record(StrictModel):
    """One cell's evidence: one method on one task, with one model and one seed.

    Attributes
    ----------
    schema
        The version of this layout.
    cell
        A hash of what was asked for.
    created
        When it was written, UTC, in ISO 8601.
    status
        ``diverged`` if a loss was not finite, ``skipped`` if something before it failed.
    reason, log
        Why there is no number, and what the stage printed, in the store; null if it is ok.
    method, task
        What took part, with all parameters.
    model, protocol, recipe
        The net, the task's recipe by its name (``custom`` if it was changed), and all its values.
    tuning
        How the recipe was chosen; null if it was not.
    seed
        Of the weights, the batches and all else that is drawn.
    data
        What was read.
    stages
        What was done for it, in order.
    metrics
        What came of it.
    references
        Published numbers that it may be held against.
    cost
        What it took; null if it is not ok.
    hardware, software
        What trained; null if nothing did.
    artifacts
        Files that the store keeps.
    command
        What was typed, without places.
    rescored
        The digest of the record whose predictions were scored again; null of others.
    """

    schema_: Literal["mixbench/record@2"] = Field(alias="schema")
    cell: str = Field(min_length=1)
    created: str
    status: Literal["ok", "failed", "diverged", "skipped"]
    reason: str | None
    log: str | None
    method: UnitRecord
    task: UnitRecord
    model: str
    protocol: str
    recipe: dict[str, Any]
    tuning: Tuning | None = None
    seed: int = Field(ge=0)
    data: DataRecord
    stages: list[StageRecord]
    metrics: list[MetricRecord]
    references: list[ReferenceRecord]
    cost: Cost | None
    hardware: Hardware | None
    software: Software | None
    artifacts: list[Artifact]
    command: list[str]
    rescored: Digest | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        ranked = [m for m in self.metrics if m.primary and m.at == "last"]
        if self.status == "ok" and (len(ranked) != 1 or self.cost is None):
            raise ValueError("an ok record needs its cost and exactly one primary metric at 'last'")
        if self.status != "ok" and not self.reason:
            raise ValueError("a record that is not ok needs a reason")
        return self

    @property
    def primary(self) -> MetricRecord:
        """The number that leaderboards rank; only ok records have one."""
        return next(m for m in self.metrics if m.primary and m.at == "last")

    @property
    def digest(self) -> str:
        """SHA-256 of the text of the file that the record was read from."""
        return digest_of(self.written)

    @property
    def written(self) -> str:
        """The text of its file: fields that the schema got since then are not in it."""
        return self.model_dump_json(by_alias=True, indent=1, exclude_unset=True) + "\n"


def parse(text: str, name: str) -> Record:
    """Return the record that a JSON text holds, one of an older schema with the present names.

    Parameters
    ----------
    name
        What to call the text in an error: its file.

    Raises
    ------
    Damaged
        If it is not a valid record; the message names the first wrong field.
    """
    try:
        return Record.model_validate_json(migrated(text, name))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise Damaged(f"{name} is not a valid record: {where}: {first['msg']}.") from error


def schema_text() -> str:
    """Return the JSON schema of a record, as leaderboards/record.schema.json holds it."""
    return json.dumps(Record.model_json_schema(by_alias=True), indent=1) + "\n"


def to_json(record: Record) -> str:
    """Return the record's text, as its file holds it."""
    return record.model_dump_json(by_alias=True, indent=1) + "\n"
