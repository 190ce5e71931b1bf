"""The status of a stage, and its outcome."""

from typing import Literal, NamedTuple

Status = Literal["waiting", "running", "done", "cached", "failed", "diverged", "skipped"]
SETTLED: frozenset[Status] = frozenset({"done", "cached", "failed", "diverged", "skipped"})
BROKEN: frozenset[Status] = frozenset({"failed", "diverged", "skipped"})


class Outcome(NamedTuple):
    """The final status of a stage, with the reason if it has no result."""

    status: Status
    reason: str = ""
