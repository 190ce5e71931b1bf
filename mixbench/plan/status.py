"""How far a stage of a plan is."""

from typing import Literal, NamedTuple

Status = Literal["waiting", "running", "done", "cached", "failed", "diverged", "skipped"]
SETTLED: frozenset[Status] = frozenset({"done", "cached", "failed", "diverged", "skipped"})
BROKEN: frozenset[Status] = frozenset({"failed", "diverged", "skipped"})


class Outcome(NamedTuple):
    """How a stage ended, and why if it has no result."""

    status: Status
    reason: str = ""
