"""From a plan to finished stages: what may start, what a process's end means, what is skipped."""

import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from mixbench.engines.engine import Ended, Engine
from mixbench.engines.run_state import RunState, StageState
from mixbench.errors import StoreFull
from mixbench.storage.spec import ExecutionOptions, StageSpec
from mixbench.worker.protocol import FULL, INPUT_DAMAGED, STOPPED

POLL_S, LOOK_S = 0.05, 1.0
ENDINGS = {
    "out of memory": "the kernel killed it because this machine's memory was full; let fewer "
    "stages run at a time, or make them smaller",
    "timeout": "it took longer than --timeout allows; the same command goes on from its checkpoint",
    "cancelled": "it was cancelled; the same command goes on from its checkpoint",
}


@dataclass(frozen=True)
class Limits:
    """What a run may cost.

    Attributes
    ----------
    retries
        How often a stage is started again whose process was lost: killed, or gone with its node.
    gpu_hours
        After which no stage is started any more.
    """

    retries: int = 2
    gpu_hours: float = float("inf")


class Show(Protocol):
    """What tells the user how far the work is."""

    def update(self, board: RunState, engine: Engine) -> None:
        """Show the board as it is now."""

    def notice(self, text: str) -> None:
        """Say something that the user should know."""


class Scheduler:
    """Runs what waits on a board, in the slots of an engine.

    Parameters
    ----------
    on_cell
        Told each cell's number as soon as it is settled.
    """

    def __init__(  # all that a run is made of
        self,
        board: RunState,
        engine: Engine,
        show: Show,
        on_cell: Callable[[int], None],
        options: ExecutionOptions,
        limits: Limits = Limits(),
    ) -> None:
        self.board, self.engine, self.show = board, engine, show
        self._on_cell, self._options, self._limits = on_cell, options, limits
        self._reported: set[int] = set()
        self._spent = False
        self._looked = 0.0
        self._cancelled: set[str] = set()

    def run(self) -> None:
        """Run what is waiting, until every cell is settled.

        Raises
        ------
        StoreFull
            If the store's disk has no room left.
        KeyboardInterrupt
            If the user interrupts; every process that does not outlive the launcher has stopped.
        """
        try:
            self._adopt()
            while len(self._reported) < len(self.board.plan.cells):
                self._advance()
                self._report()
                self.show.update(self.board, self.engine)
                time.sleep(POLL_S)
        finally:
            self.engine.stop()

    def _adopt(self) -> None:
        """Take over what an earlier launcher started, and what its engine still runs."""
        waiting = [key for key, state in self.board.states.items() if state.status == "waiting"]
        for key in waiting:  # what was cancelled before is asked for again
            (self.board.store.work(key) / "cancel.json").unlink(missing_ok=True)
        for key in self.engine.adopt(waiting):
            self.board.states[key] = StageState("running", started=time.monotonic(), attempts=1)
            self.show.notice(f"adopted  {_named(self.board, key)}: {self.engine.place(key)}")

    def _advance(self) -> None:
        """Take note of what ended, and start what may start."""
        for ended in self.engine.ended():
            self._settle(ended)
        self._cancel()
        _skip_hopeless(self.board)
        for keys in self.board.packs(self._options.pack):
            if self.engine.free and not self._over_budget(keys):
                self._start(keys)

    def _cancel(self) -> None:
        """End what somebody asked to end."""
        if time.monotonic() - self._looked < LOOK_S:
            return
        self._looked = time.monotonic()
        asked = self.board.store.cancelled() - self._cancelled
        for key in asked & self.board.states.keys():
            if self.board.states[key].status == "running":
                self._cancelled.add(key)
                self.engine.cancel(key)
            elif self.board.states[key].status == "waiting":
                self.board.states[key] = StageState("failed", ENDINGS["cancelled"])

    def _report(self) -> None:
        """Tell of the cells that are newly settled."""
        for number in range(len(self.board.plan.cells)):
            if number not in self._reported and self.board.settled(number):
                self._reported.add(number)
                self._on_cell(number)

    def _over_budget(self, keys: Sequence[str]) -> bool:
        """Skip stages, once the GPU-hours are spent, and say so once."""
        hours = gpu_hours(self.board)
        if hours < self._limits.gpu_hours:
            return False
        reason = f"{hours:.3g} GPU-hours are spent, of {self._limits.gpu_hours:g} (--max-gpu-hours)"
        self.board.states |= {key: StageState("skipped", reason) for key in keys}
        if not self._spent:
            self._spent = True
            self.show.notice(f"No stage is started any more: {reason}.")
        return True

    def _start(self, keys: Sequence[str]) -> None:
        """Start one process for stages; it prints to the log of the first one."""
        board, log = self.board, self.board.store.log(keys[0])
        for key in keys:
            board.store.write_spec(key, StageSpec(board.plan.stages[key], self._options))
        for key in keys[1:]:
            with board.store.log(key).open("a", encoding="utf-8") as file:
                file.write(f"It runs in one process with others, which prints to {log.name}.\n")
        self.engine.start(keys, log)
        for key in keys:
            attempts = board.states[key].attempts + 1
            board.states[key] = StageState(
                "running", started=time.monotonic(), attempts=attempts, sharing=len(keys)
            )

    def _settle(self, ended: Ended) -> None:
        """Turn the end of a process into the stage's new state.

        What the store has of a stage comes before what the engine says of its process.

        Raises
        ------
        StoreFull
            If the process found no room on the store's disk.
        """
        board, key = self.board, ended.key
        state, store = board.states[key], board.store
        state.duration_s = time.monotonic() - (state.started or 0)
        board.gpu_s += board.gpu_s_of(key, state.duration_s)
        code = store.exit_code(key) if ended.code is None else ended.code
        if store.finished(key):
            state.status = "done"
        elif code == FULL:
            raise StoreFull(store.root)
        elif code == INPUT_DAMAGED and (renewed := _damaged_inputs(board, key)):
            for again in (*renewed, key):
                board.states[again] = StageState()
        elif failure := store.failure(key):
            state.status, state.reason = failure.status, failure.reason
        elif _is_lost(code) and not ended.how and state.attempts <= self._limits.retries:
            board.states[key] = StageState(attempts=state.attempts)
            of = self._limits.retries + 1
            self.show.notice(
                f"retried  {_named(board, key)}: {_end_of(code, ended.how)}; attempt "
                f"{state.attempts + 1} of {of}, from its checkpoint if it has one"
            )
        else:
            state.status = "failed"
            state.reason = _end_of(code, ended.how)


def gpu_hours(board: RunState) -> float:
    """Return the GPU-hours that the run has cost so far, of running stages too."""
    now = time.monotonic()
    held = sum(
        board.gpu_s_of(key, now - state.started)
        for key, state in board.states.items()
        if state.status == "running" and state.started
    )
    return (board.gpu_s + held) / 3600


def _named(board: RunState, key: str) -> str:
    """Return what people call a stage."""
    stage = board.plan.stages[key]
    return f"{stage.kind:8} {stage.label}"


def _damaged_inputs(board: RunState, key: str) -> list[str]:
    """Return the inputs of a stage that its process put aside."""
    return [i for i in board.plan.stages[key].inputs.values() if not board.store.finished(i)]


def _skip_hopeless(board: RunState) -> None:
    """Skip what rests on a stage that has no result."""
    for key, state in board.states.items():
        if state.status == "waiting" and (broken := board.failed_inputs(key)):
            kind, before = board.plan.stages[broken[0]].kind, board.states[broken[0]]
            state.status = "skipped"
            state.reason = f"its stage {kind} {before.status}: {before.reason}"
            if before.status == "skipped":
                state.reason = before.reason


def _is_lost(code: int | None) -> bool:
    """Tell whether a process ended without an error of its own: killed, preempted, or gone."""
    return code is None or code < 0 or code == STOPPED


def _end_of(code: int | None, how: str) -> str:
    """Say how a process ended that left no word of its own."""
    if how:
        return ENDINGS[how]
    if code is None:
        return "its process is gone, and left no word"
    if code < 0:
        return f"its process was ended by {signal.Signals(-code).name}"
    told = "was told to stop" if code == STOPPED else f"ended with exit code {code} and no result"
    return f"its process {told}; see its log"
