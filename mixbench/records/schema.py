"""The record of a cell: what ran, on what, with which numbers, at what cost. Schema 1.

Unknown and missing fields are refused; what could not be measured is null, never 0.
"""

import hashlib
import json
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from mixbench.errors import Damaged
from mixbench.records.items import Items, Strict

SCHEMA = "mixbench/record@1"

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32,64}$")]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_]*$")]
NonNegative = Annotated[float, Field(ge=0)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class UnitRecord(Strict):
    """A method or task as it took part.

    Attributes
    ----------
    changed
        The parameters that differ from their defaults.
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
    """Which data was read."""

    name: str
    version: str
    origin: Literal["official", "modified", "synthetic"]
    digest: Digest


class StageRecord(Strict):
    """One stage of the cell, or of a cell that it rests on.

    Attributes
    ----------
    own
        False for a stage of another cell that this one starts from.
    state
        ``reused`` if an earlier cell or command had computed it.
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
    """A published number for this cell's method and model."""

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
    wall_s_marginal, wall_s_total : seconds
        Of work, without process start-up; marginal counts only what was computed for this cell,
        total also every reused stage that it rests on.
    images
        Passed forward and backward, over all its training stages.
    parameters, extra_parameters
        Of the model, and what the method adds to it in training.
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
    """The software that trained; the commit is null outside a checkout."""

    python: str
    os: str
    mixbench: str
    commit: str | None
    dirty: bool | None
    packages: dict[str, str]


class Artifact(Strict):
    """A file that the store keeps: where, and its digest."""

    role: Literal["weights", "curve", "predictions", "metrics", "buffers", "search"]
    path: str
    sha256: Digest
    bytes: int = Field(ge=0)


class Record(Strict):
    """One cell's evidence."""

    schema_: Literal["mixbench/record@1"] = Field(alias="schema")
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
    rescored: Digest | None = None  # the record whose predictions were scored again

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
        return hashlib.sha256(self.written.encode()).hexdigest()

    @property
    def written(self) -> str:
        """The text of its file: fields that the schema got since then are not in it."""
        return self.model_dump_json(by_alias=True, indent=1, exclude_unset=True) + "\n"


def parse(text: str, name: str) -> Record:
    """Return the record that a JSON text holds.

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
        return Record.model_validate_json(text)
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
