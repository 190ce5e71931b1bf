"""Files through which stages and launchers exchange progress, failures and plans."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from mixbench.storage.files import Typed
from mixbench.storage.spec import StageKind

STALLED_S = 60.0  # without a new line of progress; a working stage writes two per second


@dataclass(frozen=True)
class Progress:
    """The progress of a running stage: a line of ``progress.jsonl``.

    Attributes
    ----------
    step
        Number of steps done.
    of
        Total number of steps.
    first
        Step at which the current attempt started.
    steps_per_s
        Speed of the current attempt, in steps per second; 0 if it is not known yet.
    elapsed_s
        Seconds since the current attempt started.
    shown
        Metrics to display, by name.
    """

    step: int
    of: int
    first: int = 0
    steps_per_s: float = 0.0
    elapsed_s: float = 0.0
    shown: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Failure:
    """The failure of a stage, with its reason: ``failure.json``."""

    status: Literal["failed", "diverged"]
    reason: str


@dataclass(frozen=True)
class Exit:
    """The exit code of the last attempt at a stage: ``ended.json``."""

    code: int


@dataclass(frozen=True, slots=True)
class StageNote:
    """A stage of a run, as listed in the run's file."""

    kind: StageKind
    key: str


@dataclass(frozen=True, slots=True)
class CellNote:
    """A cell of a run, with all stages that it depends on, inputs first."""

    cell: str
    stages: tuple[StageNote, ...]


@dataclass(frozen=True)
class RunNote:
    """The plan of a run, which its launcher writes to ``runs/`` for commands in other shells."""

    created: str
    command: tuple[str, ...]
    engine: str
    cells: tuple[CellNote, ...]


PROGRESS, FAILURES, EXITS, RUNS = Typed(Progress), Typed(Failure), Typed(Exit), Typed(RunNote)
