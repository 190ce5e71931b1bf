"""Small files in which stages and launchers tell each other where they are."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from mixbench.storage.files import Typed
from mixbench.storage.spec import StageKind


@dataclass(frozen=True)
class Progress:
    """How far a running stage is: a line of ``progress.jsonl``.

    Attributes
    ----------
    step, of
        Steps done, and all steps.
    first
        The step at which this attempt began.
    elapsed_s
        Seconds since then.
    shown
        Numbers to show beside it, by name.
    """

    step: int
    of: int
    first: int = 0
    steps_per_s: float = 0.0
    elapsed_s: float = 0.0
    shown: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Failure:
    """How a stage failed: ``failure.json``."""

    status: Literal["failed", "diverged"]
    reason: str


@dataclass(frozen=True)
class Exit:
    """The exit code that an attempt at a stage left: ``ended.json``."""

    code: int


@dataclass(frozen=True)
class StageNote:
    """A stage of a noted run."""

    kind: StageKind
    key: str


@dataclass(frozen=True)
class CellNote:
    """A cell of a noted run, with all stages that it depends on, inputs first."""

    cell: str
    stages: tuple[StageNote, ...]


@dataclass(frozen=True)
class RunNote:
    """A run as its launcher notes it for other shells: a file in ``runs/``."""

    created: str
    command: tuple[str, ...]
    engine: str
    cells: tuple[CellNote, ...]


PROGRESS, FAILURES, EXITS, RUNS = Typed(Progress), Typed(Failure), Typed(Exit), Typed(RunNote)
