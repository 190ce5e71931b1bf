"""From a plan to finished stages: what may start, what a process's end means, what is skipped."""

import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Literal, Protocol

from mixbench.engines.local import Ended, LocalEngine
from mixbench.errors import StoreFull
from mixbench.plan.graph import Plan
from mixbench.stage import DONE, FULL, INPUT_DAMAGED
from mixbench.store import Store, write_json

Status = Literal["waiting", "running", "done", "cached", "failed", "diverged", "skipped"]
SETTLED: frozenset[Status] = frozenset({"done", "cached", "failed", "diverged", "skipped"})
OVER: frozenset[Status | None] = SETTLED | {None}  # None: not wanted again
BROKEN: frozenset[Status] = frozenset({"failed", "diverged", "skipped"})
POLL_S = 0.05


@dataclass
class StageState:
    """How far a stage is.

    Attributes
    ----------
    started, duration_s : seconds
        On a monotonic clock; None before.
    """

    status: Status = "waiting"
    reason: str = ""
    started: float | None = None
    duration_s: float | None = None


@dataclass
class Board:
    """A plan, with how far each of its wanted stages is."""

    plan: Plan
    store: Store
    num_slots: int
    states: dict[str, StageState] = field(default_factory=dict)
    payers: dict[str, int] = field(default_factory=dict)  # the cell that a stage was first run for

    def count(self, *statuses: Status) -> int:
        """Return how many stages have one of the statuses."""
        return sum(state.status in statuses for state in self.states.values())

    def status(self, key: str) -> Status | None:
        """Return a stage's status; None if it is not wanted."""
        state = self.states.get(key)
        return state.status if state else None

    def settled(self, cell: int) -> bool:
        """Tell whether nothing more will happen to a cell."""
        return self.states[self.plan.chains[cell][-1]].status in SETTLED

    def ready(self) -> list[str]:
        """Return the waiting stages whose inputs are all there, in the plan's order."""
        return [
            key
            for key, state in self.states.items()
            if state.status == "waiting"
            and all(self.status(i) in OVER for i in self.plan.stages[key].inputs.values())
            and not self.wanting(key)
        ]

    def wanting(self, key: str) -> list[str]:
        """Return the inputs for want of which a stage cannot run.

        Candidates that diverged are none, as long as there are others to choose from.
        """
        inputs = self.plan.stages[key].inputs.values()
        broken = [other for other in inputs if self.status(other) in BROKEN]
        diverged = all(self.status(other) == "diverged" for other in broken)
        if self.plan.stages[key].kind == "tune" and diverged and len(broken) < len(inputs):
            return []
        return broken


@dataclass(frozen=True)
class Means:
    """How stages are run. None of it decides a result.

    Attributes
    ----------
    checkpoint_every : steps
        How much work a crash may cost.
    workers
        Processes of a stage that read images from files ahead.
    processes
        That train one model together.
    """

    checkpoint_every: int
    workers: int = 0
    processes: int = 1


class Show(Protocol):
    """What tells the user how far the work is."""

    def update(self, board: Board) -> None:
        """Show the board as it is now."""

    def notice(self, text: str) -> None:
        """Say something that the user should know."""


def survey(plan: Plan, store: Store, num_slots: int, notice: Callable[[str], None]) -> Board:
    """Return the board before anything runs: what is cached, and what is wanted.

    A stage is wanted if it is not finished and a cell's evaluation rests on it. Finished stages
    that are damaged are put aside.
    """
    board = Board(plan, store, num_slots)
    for chain in plan.chains:
        chosen_from: set[str] = set()
        for key in reversed(chain):
            if key not in chosen_from:
                _want(board, key, notice)
            if plan.stages[key].kind == "tune" and board.status(key) == "cached":
                chosen_from |= set(plan.stages[key].inputs.values())
    return board


def _want(board: Board, key: str, notice: Callable[[str], None]) -> None:
    """Put a stage on the board, and first what it rests on, unless it is there already."""
    if key in board.states:
        return
    if board.store.finished(key):
        damage = board.store.damage(key)
        if not damage:
            board.states[key] = StageState("cached")
            return
        aside = board.store.put_aside(key)
        notice(f"{damage}: it is computed again (what was found lies in {aside}).")
    for other in board.plan.stages[key].inputs.values():
        _want(board, other, notice)
    board.states[key] = StageState()


def run(
    board: Board,
    engine: LocalEngine,
    show: Show,
    on_cell: Callable[[int], None],
    means: Means,
) -> None:
    """Run what is waiting, and report each cell's number as soon as it is settled.

    Raises
    ------
    StoreFull
        If the store's disk has no room left.
    KeyboardInterrupt
        If the user interrupts; every process has then stopped.
    """
    reported: set[int] = set()
    try:
        while len(reported) < len(board.plan.cells):
            _advance(board, engine, means)
            for number in _newly_settled(board, reported):
                reported.add(number)
                on_cell(number)
            show.update(board)
            time.sleep(POLL_S)
    finally:
        engine.stop()


def _advance(board: Board, engine: LocalEngine, means: Means) -> None:
    """Take note of what ended, and start what may start."""
    for ended in engine.ended():
        _settle(board, ended)
    _skip_hopeless(board)
    for key in board.ready():
        if engine.free:
            _start(board, engine, key, means)


def _newly_settled(board: Board, reported: set[int]) -> list[int]:
    """Return the numbers of the cells that are settled and were not reported."""
    return [n for n in range(len(board.plan.cells)) if n not in reported and board.settled(n)]


def _start(board: Board, engine: LocalEngine, key: str, means: Means) -> None:
    stage = board.plan.stages[key]
    work = board.store.work(key)
    write_json(work / "spec.json", asdict(stage) | asdict(means))
    engine.start(key, board.store.log(key))
    board.states[key] = StageState("running", started=time.monotonic())


def _settle(board: Board, ended: Ended) -> None:
    """Turn the end of a process into the stage's new state."""
    state = board.states[ended.key]
    store = board.store
    state.duration_s = time.monotonic() - (state.started or 0)
    if ended.code == DONE and store.finished(ended.key):
        state.status = "done"
    elif ended.code == FULL:
        raise StoreFull(store.root)
    elif ended.code == INPUT_DAMAGED and (renewed := _damaged_inputs(board, ended.key)):
        for again in (*renewed, ended.key):
            board.states[again] = StageState()
    else:
        failure = store.failure(ended.key)
        state.status = "diverged" if failure.get("status") == "diverged" else "failed"
        state.reason = failure.get("reason") or _end_of(ended.code)


def _damaged_inputs(board: Board, key: str) -> list[str]:
    """Return the inputs of a stage that its process put aside."""
    return [i for i in board.plan.stages[key].inputs.values() if not board.store.finished(i)]


def _skip_hopeless(board: Board) -> None:
    """Skip what rests on a stage that has no result."""
    for key, state in board.states.items():
        if state.status == "waiting" and (broken := board.wanting(key)):
            kind, before = board.plan.stages[broken[0]].kind, board.states[broken[0]]
            state.status = "skipped"
            state.reason = f"its stage {kind} {before.status}: {before.reason}"
            if before.status == "skipped":
                state.reason = before.reason


def _end_of(code: int) -> str:
    """Say how a process ended that left no word of its own."""
    if code < 0:
        name = signal.Signals(-code).name
        hint = " (out of memory?)" if -code == signal.SIGKILL else ""
        return (
            f"its process was ended by {name}{hint}; the same command goes on from its checkpoint"
        )
    return f"its process ended with exit code {code} and no result; see its log"
