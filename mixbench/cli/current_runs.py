"""The current runs of a store, their cells and the states of their stages."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mixbench.cli.skipped import skip
from mixbench.errors import Damaged, UnknownName, UsageError

if TYPE_CHECKING:
    from mixbench.storage.notes import CellNote, RunNote
    from mixbench.storage.store import Store

State = Literal[
    "finished", "running", "queued", "failed", "diverged", "skipped", "stopped", "waiting"
]


@dataclass
class StageRow:
    """State of one stage of a run.

    Attributes
    ----------
    cell
        Name of the cell that needs the stage.
    kind
        Kind of the stage, as in "train".
    key
        Key of the stage in the store.
    state
        Current state of the stage.
    detail
        Current step, machine or job, or the reason of a failure; empty if unknown.
    """

    cell: str
    kind: str
    key: str
    state: State
    detail: str


def current_runs(store: "Store") -> "list[RunNote]":
    """Return the newest run of the store and all others that go on, oldest first.

    These have a launcher that runs, or a job in SLURM's queue.

    Raises
    ------
    UsageError
        If the store contains no run that can be read.
    """
    from mixbench.engines.slurm_queue import places
    from mixbench.storage.notes import RUNS

    found: list[RunNote] = []
    jobs = places(store).keys()
    for path in reversed(store.noted_runs()):
        sure = not found or store.launcher_lease(path).fresh()
        if not (sure or jobs):
            continue
        try:
            run = RUNS.read(path)
        except (Damaged, OSError) as error:
            skip(str(error))
            continue
        if sure or any(stage.key in jobs for cell in run.cells for stage in cell.stages):
            found.insert(0, run)
    if not found:
        raise UsageError(f"The store {store.root} contains no run; start one with `mixbench run`.")
    return found


def chosen_cells(runs: "Sequence[RunNote]", parts: Sequence[str]) -> "list[CellNote]":
    """Return the cells of some runs whose names contain one of the given parts.

    Cells of different recipes or folders may have the same name. A part is one or more complete
    components of the name between slashes.

    Raises
    ------
    UnknownName
        If a part matches no cell.
    """
    every = [note for run in runs for note in run.cells]
    for part in parts:
        if not any(matches(part, note.cell) for note in every):
            known = dict.fromkeys(note.cell for note in every)
            raise UnknownName("cell of the current runs", part, [*known])
    return [note for note in every if any(matches(part, note.cell) for part in parts)]


def matches(part: str, cell: str) -> bool:
    """Return whether a cell's name, with or without parameters, contains the whole part."""
    plain = re.sub(r"\[[^]]*\]", "", cell)
    return any(f"/{part}/" in f"/{name}/" for name in (cell, plain))


def stage_rows(store: "Store", note: "CellNote") -> Iterator[StageRow]:
    """Yield the stages of a cell with their states; stages after a failed one are skipped."""
    broken = ""
    for stage in note.stages:
        try:
            state, detail = _state(store, stage.key)
        except Damaged as error:
            skip(str(error))
            state, detail = "waiting", "its files cannot be read"
        if state in {"failed", "diverged"}:
            broken = stage.kind
        elif state == "waiting" and broken:
            state, detail = "skipped", f"depends on the failed stage {broken}"
        yield StageRow(note.cell, stage.kind, stage.key, state, detail)


def _stalled(store: "Store", key: str, silent_s: float) -> str:
    """Return that a stage has stalled, with what to look at."""
    return f"stalled: no progress for {silent_s:.0f} s; see {store.log(key)}"


def _state(store: "Store", key: str) -> tuple[State, str]:
    """Return the state of a stage and its detail, as read from the store."""
    if store.finished(key):
        return "finished", ""
    failure, line = store.failure(key), store.progress(key)
    where = f"step {line.step} of {line.of}" if line else ""
    if failure:
        return failure.status, failure.reason
    if store.running(key):
        from mixbench.storage.notes import STALLED_S

        silent_s = store.silence_s(key)
        if silent_s >= STALLED_S:
            where = ", ".join(filter(None, (where, _stalled(store, key, silent_s))))
        return "running", where
    return ("stopped" if line else "waiting"), where
