"""The scheduler, which runs the stages of a plan on an engine and settles how each one ended."""

import signal
import time
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from typing import Protocol

from mixbench.engines.engine import Ended, Engine
from mixbench.engines.run_state import RunState, StageState
from mixbench.errors import DamagedImage, StoreFull
from mixbench.storage.spec import ExecutionOptions, StageSpec
from mixbench.worker.protocol import BAD_DATA, FULL, INPUT_DAMAGED, STOPPED

POLL_S, LOOK_S = 0.05, 1.0
ENDINGS = {
    "out of memory": "the kernel killed it because the machine ran out of memory; run fewer "
    "stages at a time, or reduce the memory that each one needs",
    "timeout": "it exceeded --timeout; run the same command again to resume from its checkpoint",
    "cancelled": "it was cancelled; run the same command again to resume from its checkpoint",
}


@dataclass(frozen=True)
class Limits:
    """Limits on the cost of a run.

    Attributes
    ----------
    retries
        Number of times a stage is restarted after its process was killed or its node was lost.
    gpu_hours
        GPU-hour budget; no new stage starts once it is used up.
    tasks
        Names of the tasks whose stages are run; None for all.
    """

    retries: int = 2
    gpu_hours: float = float("inf")
    tasks: Set[str] | None = None


class Show(Protocol):
    """The interface of a progress display."""

    def update(self, board: RunState, engine: Engine) -> None:
        """Show the current state of the run."""

    def notice(self, text: str) -> None:
        """Print a message for the user."""


class Scheduler:
    """Run the waiting stages of a run in the slots of an engine.

    Parameters
    ----------
    on_cell
        Callback that receives the number of each cell once nothing more will run for it.
    """

    def __init__(  # one argument per component of a run
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
        self._spent = False
        self._looked = 0.0
        self._cancelled: set[str] = set()

    def run(self) -> None:
        """Run the waiting stages until every cell is settled, or waits for another task.

        Raises
        ------
        StoreFull
            If the store's disk is full.
        DamagedImage
            If a validation or test image is damaged.
        KeyboardInterrupt
            If the user interrupts. Every process that does not outlive the launcher has stopped.
        """
        self.board.num_slots, self.board.gpus = self.engine.num_slots, self.engine.gpus
        try:
            self._adopt()
            while True:
                self._advance()
                self._report()
                self.show.update(self.board, self.engine)
                if not self._has_work():
                    return
                time.sleep(POLL_S)
        finally:
            self.engine.stop()

    def _has_work(self) -> bool:
        """Whether cells are to be settled and the scheduler can do something for them."""
        board = self.board
        if len(board.reported) == len(board.plan.cells):
            return False
        return board.count("running") > 0 or any(map(self._mine, board.ready()))

    def _mine(self, key: str) -> bool:
        """Whether a stage is of the tasks that are run."""
        tasks = self._limits.tasks
        return tasks is None or self.board.plan.stages[key].identity.task.name in tasks

    def _adopt(self) -> None:
        """Adopt the stages that an earlier launcher started and that are still running."""
        waiting = [key for key, state in self.board.states.items() if state.status == "waiting"]
        for key in waiting:  # an earlier cancellation no longer applies
            (self.board.store.work(key) / "cancel.json").unlink(missing_ok=True)
        for key in self.engine.adopt(waiting):
            self.board.states[key] = StageState("running", started=time.monotonic(), attempts=1)
            self.show.notice(f"adopted  {_named(self.board, key)}: {self.engine.place(key)}")

    def _advance(self) -> None:
        """Process the stages that ended, and start those that are ready."""
        for ended in self.engine.ended():
            self._settle(ended)
        self._cancel()
        for keys in self.board.packs(self._options.pack):
            if self._mine(keys[0]) and self.engine.free and not self._over_budget(keys):
                self._start(keys)
        _skip_hopeless(self.board)  # also what a used-up budget leaves without inputs

    def _cancel(self) -> None:
        """Cancel the stages for which the store holds a cancellation request."""
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
        """Call `on_cell` for each cell that was settled since the last call."""
        for number in range(len(self.board.plan.cells)):
            if number not in self.board.reported and self.board.settled(number):
                self.board.reported.add(number)
                self._on_cell(number)

    def _over_budget(self, keys: Sequence[str]) -> bool:
        """Skip the stages if the GPU-hour budget is used up, and tell the user once."""
        hours = gpu_hours(self.board)
        if hours < self._limits.gpu_hours:
            return False
        reason = f"{hours:.3g} of {self._limits.gpu_hours:g} GPU-hours are used (--max-gpu-hours)"
        self.board.states |= {key: StageState("skipped", reason) for key in keys}
        if not self._spent:
            self._spent = True
            self.show.notice(f"No further stages are started: {reason}.")
        return True

    def _start(self, keys: Sequence[str]) -> None:
        """Start one process for the stages; its output goes to the log of the first one."""
        board, log = self.board, self.board.store.log(keys[0])
        for key in keys:
            board.store.write_spec(key, StageSpec(board.plan.stages[key], self._options))
        for key in keys[1:]:
            with board.store.log(key).open("a", encoding="utf-8") as file:
                file.write(f"Runs in one process with others; their output is in {log.name}.\n")
        self.engine.start(keys, log)
        for key in keys:
            attempts = board.states[key].attempts + 1
            board.states[key] = StageState(
                "running", started=time.monotonic(), attempts=attempts, sharing=len(keys)
            )

    def _settle(self, ended: Ended) -> None:
        """Update a stage's state after its process ended.

        The state that the store holds takes precedence over what the engine reports.

        Raises
        ------
        StoreFull
            If the process found the store's disk full.
        DamagedImage
            If the process found an image that no stage can read.
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
        elif code == BAD_DATA and (failure := store.failure(key)):
            raise DamagedImage(failure.reason)
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
    """Return the GPU-hours that the run has used so far, including its running stages."""
    now = time.monotonic()
    held = sum(
        board.gpu_s_of(key, now - state.started)
        for key, state in board.states.items()
        if state.status == "running" and state.started
    )
    return (board.gpu_s + held) / 3600


def _named(board: RunState, key: str) -> str:
    """Return the kind and label of a stage, for messages."""
    stage = board.plan.stages[key]
    return f"{stage.kind:8} {stage.label}"


def _damaged_inputs(board: RunState, key: str) -> list[str]:
    """Return the inputs of a stage that its process found damaged and moved away."""
    return [i for i in board.plan.stages[key].inputs.values() if not board.store.finished(i)]


def _skip_hopeless(board: RunState) -> None:
    """Skip the stages whose inputs failed, diverged or were skipped."""
    for key, state in board.states.items():
        if state.status == "waiting" and (broken := board.failed_inputs(key)):
            kind, before = board.plan.stages[broken[0]].kind, board.states[broken[0]]
            state.status = "skipped"
            state.reason = f"its stage {kind} {before.status}: {before.reason}"
            if before.status == "skipped":
                state.reason = before.reason


def _is_lost(code: int | None) -> bool:
    """Return whether a process was killed, preempted or lost, as opposed to failing itself."""
    return code is None or code < 0 or code == STOPPED


def _end_of(code: int | None, how: str) -> str:
    """Return a description of how a process ended that recorded no failure."""
    if how:
        return ENDINGS[how]
    if code is None:
        return "its process exited without a status; see its log"
    if code < 0:
        return f"its process was killed by {signal.Signals(-code).name}"
    told = "was asked to stop" if code == STOPPED else f"exited with code {code} and no result"
    return f"its process {told}; see its log"
