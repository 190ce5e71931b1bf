"""How far a plan is: what of each stage is known, what is wanted, and what may start."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from mixbench.plan.graph import Plan
from mixbench.plan.status import BROKEN, SETTLED, Outcome, Status
from mixbench.storage.store import Store

OVER: frozenset[Status | None] = SETTLED | {None}  # None: not wanted again


@dataclass
class StageState:
    """How far a stage is.

    Attributes
    ----------
    started, duration_s : seconds
        On a monotonic clock; None before.
    attempts
        How often it was started.
    sharing
        How many stages its process runs, itself included.
    """

    status: Status = "waiting"
    reason: str = ""
    started: float | None = None
    duration_s: float | None = None
    attempts: int = 0
    sharing: int = 1


@dataclass
class RunState:
    """A plan, with how far each of its wanted stages is.

    Attributes
    ----------
    num_slots
        How many stages run at a time.
    gpus
        Of each of them, on each of its nodes.
    nodes
        Of a training; other stages have one.
    gpu_s
        Seconds that stages which ended have held GPUs, times how many.
    """

    plan: Plan
    store: Store
    num_slots: int
    gpus: float = 0.0
    nodes: int = 1
    gpu_s: float = 0.0
    states: dict[str, StageState] = field(default_factory=dict)
    cost_owner: dict[str, int] = field(default_factory=dict)  # the cell a stage was first run for

    def count(self, *statuses: Status) -> int:
        """Return how many stages have one of the statuses."""
        return sum(state.status in statuses for state in self.states.values())

    def gpu_s_of(self, key: str, seconds: float) -> float:
        """Return the GPU-seconds that a stage holds in some time; stages of a process share it."""
        return self.gpus_of(self.plan.stages[key].kind) * seconds / self.states[key].sharing

    def gpus_of(self, kind: str) -> float:
        """Return how many GPUs a stage of some kind holds while it runs."""
        return self.gpus * (self.nodes if kind == "train" else 1)

    def status(self, key: str) -> Status | None:
        """Return a stage's status; None if it is not wanted."""
        state = self.states.get(key)
        return state.status if state else None

    def outcomes(self, cell: int) -> dict[str, Outcome]:
        """Return how each of a cell's own stages ended, as far as it was wanted."""
        wanted = (key for key in self.plan.chains[cell] if key in self.states)
        return {key: Outcome(self.states[key].status, self.states[key].reason) for key in wanted}

    def ran_for(self, cell: int) -> frozenset[str]:
        """Return the stages that were computed for a cell, and for no cell that settled earlier."""
        keys = self.plan.rests_on(self.plan.chains[cell][-1])
        for key in keys:
            if self.status(key) == "done":
                self.cost_owner.setdefault(key, cell)
        return frozenset(key for key in keys if self.cost_owner.get(key) == cell)

    def settled(self, cell: int) -> bool:
        """Tell whether nothing more will happen to a cell."""
        return self.states[self.plan.chains[cell][-1]].status in SETTLED

    def ready(self) -> list[str]:
        """Return the waiting stages whose inputs are all there, what unblocks most first.

        Of equals, the plan's order.
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
        """Return what may start, by process: trainings that have enough in common share one.

        Parameters
        ----------
        size
            How many do at most.
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
        """How many stages rest on each, directly or not."""
        above: dict[str, set[str]] = {key: set() for key in self.plan.stages}
        for key in reversed([*self.plan.stages]):  # each stands after all its inputs
            for other in self.plan.stages[key].inputs.values():
                above[other] |= {key, *above[key]}
        return {key: len(keys) for key, keys in above.items()}

    def failed_inputs(self, key: str) -> list[str]:
        """Return the inputs for want of which a stage cannot run.

        Candidates that diverged are none, as long as there are others to choose from.
        """
        inputs = self.plan.stages[key].inputs.values()
        broken = [other for other in inputs if self.status(other) in BROKEN]
        diverged = all(self.status(other) == "diverged" for other in broken)
        if self.plan.stages[key].kind == "tune" and diverged and len(broken) < len(inputs):
            return []
        return broken


def mark_cached(board: RunState, notice: Callable[[str], None]) -> None:
    """Note what is there before anything runs: what is cached, and what is wanted.

    A stage is wanted if it is not finished and a cell's evaluation rests on it. Finished stages
    that are damaged are put aside.
    """
    for chain in board.plan.chains:
        chosen_from: set[str] = set()
        for key in reversed(chain):
            if key not in chosen_from:
                _want(board, key, notice)
            if board.plan.stages[key].kind == "tune" and board.status(key) == "cached":
                chosen_from |= set(board.plan.stages[key].inputs.values())


def _want(board: RunState, key: str, notice: Callable[[str], None]) -> None:
    """Put a stage on the board, and first what it rests on, unless it is there already."""
    if key in board.states:
        return
    if board.store.finished(key):
        damage = board.store.damage(key)
        if not damage:
            board.states[key] = StageState("cached")
            return
        aside = board.store.quarantine(key)
        notice(f"{damage}: it is computed again (what was found lies in {aside}).")
    for other in board.plan.stages[key].inputs.values():
        _want(board, other, notice)
    board.states[key] = StageState()
