"""The record of a cell: what ran, on what, with which numbers, at what cost. Schema 1.

Unknown and missing fields are refused; what could not be measured is null, never 0.
"""

import hashlib
import json
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from mixbench.errors import Damaged
from mixbench.records.items import Strict
from mixbench.records.parts import (
    Artifact,
    Cost,
    DataRecord,
    Digest,
    Hardware,
    MetricRecord,
    ReferenceRecord,
    Software,
    StageRecord,
    Tuning,
    UnitRecord,
)

SCHEMA = "mixbench/record@1"


class Record(Strict):
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
