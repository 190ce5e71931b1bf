"""The state of a run: the status of every stage of the plan, and which stages can start.

A launcher looks at its run several times a second. What a look costs must therefore not depend on
the number of stages: a change of one stage updates the counts, the queue of stages that can start
and the stages that depend on it.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from functools import cached_property
from heapq import heappop, heappush

from mixbench.plan.graph import Plan
from mixbench.plan.status import BROKEN, SETTLED, Outcome, Status
from mixbench.storage.spec import DISTRIBUTED_KINDS, StageKind
from mixbench.storage.store import Store

OVER: frozenset[Status | None] = SETTLED | {None}  # None: not needed


@dataclass(frozen=True, slots=True)
class StageState:
    """The state of one stage.

    Attributes
    ----------
    status
        Status of the stage.
    reason
        Why the stage has no result; empty unless it failed, diverged or was skipped.
    started : seconds
        Monotonic time at which the last attempt started; None before the first.
    duration_s : seconds
        Duration of the last attempt; None before it ended.
    attempts
        Number of times that the stage was started.
    sharing
        Number of stages that its process runs, including this one.
    """

    status: Status = "waiting"
    reason: str = ""
    started: float | None = None
    duration_s: float | None = None
    attempts: int = 0
    sharing: int = 1


WAITING, CACHED = StageState(), StageState("cached")


@dataclass
class Work:
    """The work of the stages of one kind that do not run now.

    Attributes
    ----------
    waiting
        Epochs of the waiting stages; stages that do not train count as one epoch each.
    done
        Epochs of the stages that are done.
    done_s : seconds
        What they took; stages that share a process share its time.
    """

    waiting: int = 0
    done: int = 0
    done_s: float = 0.0


class RunState:
    """A plan with the state of each stage that it needs.

    Parameters
    ----------
    plan
        Plan that is run.
    store
        Store with the finished stages.
    num_slots
        Number of stages that can run at a time.
    gpus
        Number of GPUs that a training holds on each of its nodes.
    nodes
        Number of nodes of a training; all other stages run on one node.

    Attributes
    ----------
    gpus_alone
        Number of GPUs that a stage of one process holds.
    gpu_s
        GPU-seconds that ended attempts have used.
    states
        State of each needed stage, by key; `put` changes it.
    running
        Keys of the running stages, in the order of their start.
    ended
        Keys of the stages that ended, in that order; one that is computed again ends again.
    settled
        Indices of the cells that are settled and not yet reported.
    work
        Work of the stages that do not run now, by kind.
    cost_owner
        Index of the cell that pays for a stage, by key: the first cell that settled with it.
    """

    def __init__(
        self,
        plan: Plan,
        store: Store,
        num_slots: int,
        gpus: float = 0.0,
        nodes: int = 1,
    ) -> None:
        self.plan, self.store = plan, store
        self.num_slots, self.gpus, self.nodes = num_slots, gpus, nodes
        self.gpus_alone = gpus
        self.gpu_s = 0.0
        self.states: dict[str, StageState] = {}
        self.running: dict[str, None] = {}
        self.ended: list[str] = []
        self.settled: deque[int] = deque()
        self.work: dict[StageKind, Work] = defaultdict(Work)
        self.cost_owner: dict[str, int] = {}
        self._counts: Counter[Status] = Counter()
        self._queues: dict[str, list[tuple[int, int, str]]] = defaultdict(list)  # by task
        self._order = {key: place for place, key in enumerate(plan.stages)}
        self._cells: dict[str, list[int]] = defaultdict(list)  # by their own stages
        for cell, chain in enumerate(plan.chains):
            for key in chain:
                self._cells[key].append(cell)
        self._open = set(range(len(plan.cells)))  # cells that are not settled

    def begin(self, states: Mapping[str, StageState]) -> None:
        """Set the initial state of every needed stage, each of which is waiting or cached."""
        self.states.update(states)
        for key, state in states.items():
            self._count(key, state, 1)
        for key, state in states.items():
            if state.status == "waiting":
                self.enqueue(key)
        for cell in range(len(self.plan.cells)):
            self._settle(cell)

    def put(self, key: str, state: StageState) -> None:
        """Change the state of a stage; skip the stages that can no longer run."""
        before = self.states.get(key)
        if before is not None:
            self._count(key, before, -1)
            self.running.pop(key, None)
        self.states[key] = state
        self._count(key, state, 1)
        if state.status == "running":
            self.running[key] = None
        elif state.status == "waiting":
            self.enqueue(key)
        else:
            if state.status != "cached":
                self.ended.append(key)
            for cell in self._cells.get(key, ()):
                self._settle(cell)
            for other in self._above.get(key, ()):
                if self.status(other) == "waiting":
                    self.enqueue(other)

    def _settle(self, cell: int) -> None:
        """Note that a cell is settled, if nothing more will run for it."""
        if cell in self._open and all(self.status(key) in OVER for key in self.plan.chains[cell]):
            self._open.remove(cell)
            self.settled.append(cell)

    @property
    def num_open(self) -> int:
        """Number of cells that are not settled."""
        return len(self._open)

    @property
    def complete(self) -> bool:
        """Whether all cells are settled and reported."""
        return not (self._open or self.settled)

    def enqueue(self, key: str) -> None:
        """Let a waiting stage start if its inputs are finished; skip it if one of them failed."""
        if broken := self.failed_inputs(key):
            kind, before = self.plan.stages[broken[0]].kind, self.states[broken[0]]
            reason = f"its stage {kind} {before.status}: {before.reason}"
            if before.status == "skipped":
                reason = before.reason
            self.put(key, StageState("skipped", reason, attempts=self.states[key].attempts))
        elif self._startable(key):
            task = self.plan.stages[key].identity.task.name
            heappush(self._queues[task], (-self._dependents.get(key, 0), self._order[key], key))

    def _startable(self, key: str) -> bool:
        """Whether a stage waits for nothing but a slot."""
        inputs = self.plan.stages[key].inputs.values()
        return self.status(key) == "waiting" and all(self.status(i) in OVER for i in inputs)

    def _count(self, key: str, state: StageState, sign: int) -> None:
        """Add a stage to the totals, or remove it with the sign -1."""
        self._counts[state.status] += sign
        stage = self.plan.stages[key]
        work, size = self.work[stage.kind], max(stage.num_epochs, 1)
        if state.status == "waiting":
            work.waiting += sign * size
        elif state.status == "done" and state.duration_s:
            work.done += sign * size
            work.done_s += sign * state.duration_s / state.sharing

    def count(self, *statuses: Status) -> int:
        """Return the number of stages that have one of the statuses."""
        return sum(self._counts[status] for status in statuses)

    def gpu_s_of(self, key: str, seconds: float) -> float:
        """Return the GPU-seconds that a stage uses in some seconds; packed stages share them."""
        return self.gpus_of(self.plan.stages[key].kind) * seconds / self.states[key].sharing

    def gpus_of(self, kind: str) -> float:
        """Return the number of GPUs that a stage of a kind holds while it runs."""
        return self.gpus * self.nodes if kind in DISTRIBUTED_KINDS else self.gpus_alone

    def status(self, key: str) -> Status | None:
        """Return a stage's status; None if the stage is not needed."""
        state = self.states.get(key)
        return state.status if state else None

    def outcomes(self, cell: int) -> dict[str, Outcome]:
        """Return the outcome of each needed stage of a cell's own chain, by key."""
        wanted = (key for key in self.plan.chains[cell] if key in self.states)
        return {key: Outcome(self.states[key].status, self.states[key].reason) for key in wanted}

    def ran_for(self, cell: int) -> frozenset[str]:
        """Return the stages computed for a cell that no earlier settled cell has paid for."""
        keys = self.plan.rests_on(self.plan.chains[cell][-1])
        for key in keys:
            if self.status(key) == "done":
                self.cost_owner.setdefault(key, cell)
        return frozenset(key for key in keys if self.cost_owner.get(key) == cell)

    def can_start(self, tasks: Set[str] | None = None) -> bool:
        """Return whether a stage of some tasks, or of any, can start."""
        return any(self._first(task) for task in self._among(tasks))

    def take(self, size: int = 1, tasks: Set[str] | None = None) -> list[str]:
        """Remove the stages that start next from the queue, and return their keys.

        Those with most dependents come first, and then those that come first in the plan. Similar
        trainings share a process.

        Parameters
        ----------
        size
            Maximum number of trainings per process.
        tasks
            Names of the tasks whose stages may start; None for all.
        """
        heads = [(entry, task) for task in self._among(tasks) if (entry := self._first(task))]
        if not heads:
            return []
        _, task = min(heads)
        queue = self._queues[task]
        taken = [heappop(queue)[2]]
        if size > 1:
            packable = self.plan.stages[taken[0]].packable_with
            for entry in sorted(queue):
                key = entry[2]
                if len(taken) == size:
                    break
                same = self.plan.stages[key].packable_with == packable
                if same and key not in taken and self._startable(key):
                    taken.append(key)
                    queue.remove(entry)
            queue.sort()  # which is a heap
        return taken

    def _among(self, tasks: Set[str] | None) -> Iterator[str]:
        return (task for task in self._queues if tasks is None or task in tasks)

    def _first(self, task: str) -> tuple[int, int, str] | None:
        """Return the first entry of a queue, after removing those that cannot start any more."""
        queue = self._queues[task]
        while queue and not self._startable(queue[0][2]):
            heappop(queue)
        return queue[0] if queue else None

    @cached_property
    def _above(self) -> dict[str, list[str]]:
        """The stages that read the result of a stage, by its key, if any do."""
        above: dict[str, list[str]] = {}
        for key, stage in self.plan.stages.items():
            for other in dict.fromkeys(stage.inputs.values()):
                above.setdefault(other, []).append(key)
        return above

    @cached_property
    def _dependents(self) -> dict[str, int]:
        """Number of stages that depend on a stage, directly or indirectly, by key, if any do."""
        above: dict[str, set[str]] = {}
        for key in reversed([*self.plan.stages]):  # a stage comes after all its inputs
            for other in self.plan.stages[key].inputs.values():
                above.setdefault(other, set()).update(above.get(key, ()), [key])
        return {key: len(keys) for key, keys in above.items()}

    def failed_inputs(self, key: str) -> list[str]:
        """Return the inputs without a result, because of which a stage cannot run.

        For a `tune` stage, diverged candidates do not count unless all candidates diverged.
        """
        inputs = self.plan.stages[key].inputs.values()
        broken = [other for other in inputs if self.status(other) in BROKEN]
        diverged = all(self.status(other) == "diverged" for other in broken)
        if self.plan.stages[key].kind == "tune" and diverged and len(broken) < len(inputs):
            return []
        return broken


def mark_cached(board: RunState, notice: Callable[[str], None]) -> None:
    """Set the initial state of every stage that the run needs: cached or waiting.

    A stage is needed if a cell's evaluation depends on it and it is not finished. Finished stages
    that are damaged are moved away and computed again.
    """
    states: dict[str, StageState] = {}
    for chain in board.plan.chains:
        chosen_from: set[str] = set()
        for key in reversed(chain):
            if key not in chosen_from:
                _want(board, states, key, notice)
            if board.plan.stages[key].kind == "tune" and states.get(key) == CACHED:
                chosen_from |= set(board.plan.stages[key].inputs.values())
    board.begin(states)


def _want(
    board: RunState, states: dict[str, StageState], key: str, notice: Callable[[str], None]
) -> None:
    """Add the state of a stage and, if it is not cached, first those of its inputs."""
    if key in states:
        return
    if board.store.finished(key):
        damage = board.store.damage(key)
        if not damage:
            states[key] = CACHED
            return
        aside = board.store.quarantine(key)
        notice(f"{damage}: it is computed again (the damaged files were moved to {aside}).")
    for other in board.plan.stages[key].inputs.values():
        _want(board, states, other, notice)
    states[key] = WAITING
