"""The newest run of a store: its cells, and how far their stages are."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mixbench.errors import UnknownName, UsageError

if TYPE_CHECKING:
    from mixbench.storage.notes import CellNote, RunNote
    from mixbench.storage.store import Store

State = Literal[
    "finished", "running", "queued", "failed", "diverged", "skipped", "stopped", "waiting"
]


@dataclass
class StageRow:
    """A stage of a noted run, and how far it is.

    Attributes
    ----------
    detail
        What else is known: its step, where it runs, or why it failed.
    """

    cell: str
    kind: str
    key: str
    state: State
    detail: str


def newest_run(store: "Store") -> "RunNote":
    """Return the newest run that the store has noted.

    Raises
    ------
    UsageError
        If it has noted none.
    """
    from mixbench.storage.notes import RUNS

    runs = store.noted_runs()
    if not runs:
        raise UsageError(f"No run is noted in {store.root}; start one with `mixbench run`.")
    return RUNS.read(runs[-1])


def chosen_cells(run: "RunNote", parts: Sequence[str]) -> "list[CellNote]":
    """Return the run's cells that are meant by whole parts of their names.

    Raises
    ------
    UnknownName
        If a part names no cell.
    """
    known = [note.cell for note in run.cells]
    for part in parts:
        if not any(_matches(part, cell) for cell in known):
            raise UnknownName("cell of the newest run", part, known)
    return [note for note in run.cells if any(_matches(part, note.cell) for part in parts)]


def _matches(part: str, cell: str) -> bool:
    """Tell whether some whole parts of a cell's name, with or without parameters, are meant."""
    plain = re.sub(r"\[[^]]*\]", "", cell)
    return any(f"/{part}/" in f"/{name}/" for name in (cell, plain))


def stage_rows(store: "Store", note: "CellNote") -> Iterator[StageRow]:
    """Yield a cell's stages with their states; what depends on a failed one is skipped."""
    broken = ""
    for stage in note.stages:
        state, detail = _state(store, stage.key)
        if state in {"failed", "diverged"}:
            broken = stage.kind
        elif state == "waiting" and broken:
            state, detail = "skipped", f"rests on {broken}"
        yield StageRow(note.cell, stage.kind, stage.key, state, detail)


def _state(store: "Store", key: str) -> tuple[State, str]:
    """Return a stage's state and what else there is to say, as the disk has it."""
    if store.finished(key):
        return "finished", ""
    failure, line = store.failure(key), store.progress(key)
    where = f"step {line.step} of {line.of}" if line else ""
    if failure:
        return failure.status, failure.reason
    if store.running(key):
        return "running", where
    return ("stopped" if line else "waiting"), where
