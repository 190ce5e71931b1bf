"""The scheduler, which runs the stages of a plan on an engine and settles how each one ended."""

import signal
import time
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace
from typing import Protocol

from mixbench.engines.engine import Ended, Engine, NotNow
from mixbench.engines.run_state import CACHED, WAITING, RunState, StageState
from mixbench.errors import DamagedImage, StoreFull
from mixbench.storage.spec import ExecutionOptions, StageSpec
from mixbench.worker.protocol import BAD_DATA, ELSEWHERE, FULL, INPUT_DAMAGED, STOPPED

POLL_S, LOOK_S = 0.05, 1.0
LOOK_ELSEWHERE_S = 5.0  # between two looks whether another launcher's stages have ended
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
        GPU-hour budget; no new stage starts once it is used up. The plan's finished stages
        count, whichever command ran them.
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
        self._refused = False
        self._looked = self._looked_elsewhere = 0.0
        self._cancelled: set[str] = set()
        self._elsewhere: set[str] = set()  # stages that another launcher runs
        self._others_gpu_s = 0.0  # GPU-seconds of finished stages that this launcher did not run

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
        board, engine = self.board, self.engine
        board.num_slots, board.gpus, board.gpus_alone = (
            engine.num_slots, engine.gpus, engine.gpus_alone
        )  # fmt: skip
        try:
            self._adopt()
            if self._limits.gpu_hours < float("inf"):
                for key in self.board.plan.stages:
                    self._count_other(key)
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
        if not board.num_open:
            return False
        return bool(board.running or self._elsewhere or board.can_start(self._limits.tasks))

    def _adopt(self) -> None:
        """Adopt the stages that an earlier launcher started and that are still running."""
        waiting = [key for key, state in self.board.states.items() if state.status == "waiting"]
        for key in waiting:  # an earlier cancellation no longer applies
            (self.board.store.work(key) / "cancel.json").unlink(missing_ok=True)
        for key in self.engine.adopt(waiting):
            running = StageState("running", started=time.monotonic(), attempts=1)
            self.board.put(key, running)
            self.show.notice(f"adopted  {_named(self.board, key)}: {self.engine.place(key)}")

    def _advance(self) -> None:
        """Process the stages that ended, and start those that are ready."""
        for ended in self.engine.ended():
            self._settle(ended)
        self._cancel()
        self._look_elsewhere()
        while self.engine.free and (
            keys := self.board.take(self._options.pack, self._limits.tasks)
        ):
            keys = [key for key in keys if not self._in_other_hands(key)]
            if keys and not self._over_budget(keys):
                self._start(keys)

    def _in_other_hands(self, key: str) -> bool:
        """Whether another launcher has finished a stage, or runs it; its stages come last."""
        store = self.board.store
        if store.finished(key):
            self._count_other(key)
            self.board.put(key, CACHED)
            return True
        if store.running(key):
            self._elsewhere.add(key)
            return True
        return False

    def _count_other(self, key: str) -> None:
        """Count the GPU time of a finished stage that another command ran."""
        if self.board.store.finished(key) and self.board.status(key) != "done":
            self._others_gpu_s += self.board.store.manifest(key).cost.gpu_s

    def _look_elsewhere(self) -> None:
        """Let the stages start that another launcher has finished or given up."""
        if time.monotonic() - self._looked_elsewhere < LOOK_ELSEWHERE_S:
            return
        self._looked_elsewhere = time.monotonic()
        store = self.board.store
        for key in {key for key in self._elsewhere if not store.running(key)}:
            self._elsewhere.remove(key)
            if self.board.status(key) == "waiting":
                self.board.enqueue(key)

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
                self.board.put(key, StageState("failed", ENDINGS["cancelled"]))

    def _report(self) -> None:
        """Call `on_cell` for each cell that was settled since the last call."""
        while self.board.settled:
            self._on_cell(self.board.settled.popleft())

    def _over_budget(self, keys: Sequence[str]) -> bool:
        """Skip the stages if the GPU-hour budget is used up, and tell the user once."""
        hours = gpu_hours(self.board) + self._others_gpu_s / 3600
        if hours < self._limits.gpu_hours:
            return False
        reason = f"{hours:.3g} of {self._limits.gpu_hours:g} GPU-hours are used (--max-gpu-hours)"
        for key in keys:
            self.board.put(key, StageState("skipped", reason))
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
        try:
            self.engine.start(keys, log)
        except NotNow as error:
            if not self._refused:  # once; the stages wait, however often they are refused
                self._refused = True
                self.show.notice(str(error))
            for key in keys:
                board.enqueue(key)
            return
        for key in keys:
            attempts = board.states[key].attempts + 1
            running = StageState(
                "running", started=time.monotonic(), attempts=attempts, sharing=len(keys)
            )
            board.put(key, running)

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
        store, seconds = board.store, time.monotonic() - (board.states[key].started or 0)
        state = replace(board.states[key], duration_s=seconds)
        board.gpu_s += board.gpu_s_of(key, seconds)
        code = store.exit_code(key) if ended.code is None else ended.code
        if store.finished(key):
            board.put(key, replace(state, status="done"))
            return
        failure = store.failure(key)
        if code == FULL:
            raise StoreFull(store.root)
        if code == BAD_DATA and failure:
            raise DamagedImage(failure.reason)
        renewed = _damaged_inputs(board, key) if code == INPUT_DAMAGED else []
        for other in renewed:
            self.show.notice(
                f"damaged  {_named(board, other)}: its files were corrupt and are computed again; "
                f"{store.log(key)} names them"
            )
            board.put(other, WAITING)
        if renewed or code == ELSEWHERE:
            board.put(key, WAITING)
        elif failure:
            board.put(key, replace(state, status=failure.status, reason=failure.reason))
        else:
            self._settle_unexplained(key, state, _end_of(code, ended.how), _is_lost(ended, code))

    def _settle_unexplained(self, key: str, state: StageState, how: str, lost: bool) -> None:  # noqa: FBT001  # a fact
        """Update the state of a stage that left no result: try it again if its process was lost."""
        if not lost or state.attempts > self._limits.retries:
            self.board.put(key, replace(state, status="failed", reason=how))
            return
        self.board.put(key, StageState(attempts=state.attempts))
        self.show.notice(
            f"retried  {_named(self.board, key)}: {how}; attempt {state.attempts + 1} of "
            f"{self._limits.retries + 1}, from its checkpoint if it has one"
        )


def gpu_hours(board: RunState) -> float:
    """Return the GPU-hours that the run has used so far, including its running stages."""
    now = time.monotonic()
    states = {key: board.states[key] for key in board.running}
    held = sum(board.gpu_s_of(key, now - one.started) for key, one in states.items() if one.started)
    return (board.gpu_s + held) / 3600


def _named(board: RunState, key: str) -> str:
    """Return the kind and label of a stage, for messages."""
    stage = board.plan.stages[key]
    return f"{stage.kind:8} {stage.label}"


def _damaged_inputs(board: RunState, key: str) -> list[str]:
    """Return the inputs of a stage that its process found damaged and moved away."""
    return [i for i in board.plan.stages[key].inputs.values() if not board.store.finished(i)]


def _is_lost(ended: Ended, code: int | None) -> bool:
    """Return whether a process was killed, preempted or lost, as opposed to failing itself."""
    return not ended.how and (code is None or code < 0 or code == STOPPED)


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
