"""The state of a run: the status of every stage of the plan, and which stages can start."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from mixbench.plan.graph import Plan
from mixbench.plan.status import BROKEN, SETTLED, Outcome, Status
from mixbench.storage.spec import DISTRIBUTED_KINDS
from mixbench.storage.store import Store

OVER: frozenset[Status | None] = SETTLED | {None}  # None: not needed


@dataclass
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


@dataclass
class RunState:
    """A plan with the state of each stage that it needs.

    Attributes
    ----------
    plan
        Plan that is run.
    store
        Store with the finished stages.
    num_slots
        Number of stages that can run at a time.
    gpus
        Number of GPUs that a stage holds on each of its nodes.
    nodes
        Number of nodes of a training; all other stages run on one node.
    gpu_s
        GPU-seconds that ended attempts have used.
    states
        State of each needed stage, by key.
    cost_owner
        Index of the cell that pays for a stage, by key: the first cell that settled with it.
    reported
        Indices of the settled cells whose records are written.
    """

    plan: Plan
    store: Store
    num_slots: int
    gpus: float = 0.0
    nodes: int = 1
    gpu_s: float = 0.0
    states: dict[str, StageState] = field(default_factory=dict)
    cost_owner: dict[str, int] = field(default_factory=dict)
    reported: set[int] = field(default_factory=set)

    def count(self, *statuses: Status) -> int:
        """Return the number of stages that have one of the statuses."""
        return sum(state.status in statuses for state in self.states.values())

    def gpu_s_of(self, key: str, seconds: float) -> float:
        """Return the GPU-seconds that a stage uses in some seconds; packed stages share them."""
        return self.gpus_of(self.plan.stages[key].kind) * seconds / self.states[key].sharing

    def gpus_of(self, kind: str) -> float:
        """Return the number of GPUs that a stage of a kind holds while it runs."""
        return self.gpus * (self.nodes if kind in DISTRIBUTED_KINDS else 1)

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

    def settled(self, cell: int) -> bool:
        """Return whether a cell is settled, so that nothing more will run for it."""
        return self.states[self.plan.chains[cell][-1]].status in SETTLED

    def ready(self) -> list[str]:
        """Return the waiting stages whose inputs are finished, those with most dependents first.

        Stages with the same number of dependents keep the order of the plan.
        """
        found = [
            key
            for key, state in self.states.items()
            if state.status == "waiting"
            and all(self.status(i) in OVER for i in self.plan.stages[key].inputs.values())
            and not self.failed_inputs(key)
        ]
        return sorted(found, key=lambda key: -self.dependents[key])

    def packs(self, size: int) -> list[list[str]]:
        """Return the ready stages grouped by process; similar trainings share a process.

        Parameters
        ----------
        size
            Maximum number of trainings per process.
        """
        groups: dict[str, list[str]] = {}
        for key in self.ready():
            groups.setdefault(self.plan.stages[key].packable_with if size > 1 else key, []).append(
                key
            )
        return [
            group[i : i + size] for group in groups.values() for i in range(0, len(group), size)
        ]

    @cached_property
    def dependents(self) -> dict[str, int]:
        """Number of stages that depend on each stage, directly or indirectly, by key."""
        above: dict[str, set[str]] = {key: set() for key in self.plan.stages}
        for key in reversed([*self.plan.stages]):  # a stage comes after all its inputs
            for other in self.plan.stages[key].inputs.values():
                above[other] |= {key, *above[key]}
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
    for chain in board.plan.chains:
        chosen_from: set[str] = set()
        for key in reversed(chain):
            if key not in chosen_from:
                _want(board, key, notice)
            if board.plan.stages[key].kind == "tune" and board.status(key) == "cached":
                chosen_from |= set(board.plan.stages[key].inputs.values())


def _want(board: RunState, key: str, notice: Callable[[str], None]) -> None:
    """Add the state of a stage and, if it is not cached, first those of its inputs."""
    if key in board.states:
        return
    if board.store.finished(key):
        damage = board.store.damage(key)
        if not damage:
            board.states[key] = StageState("cached")
            return
        aside = board.store.quarantine(key)
        notice(f"{damage}: it is computed again (the damaged files were moved to {aside}).")
    for other in board.plan.stages[key].inputs.values():
        _want(board, other, notice)
    board.states[key] = StageState()
