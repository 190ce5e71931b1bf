"""The interface of an engine, which runs stages as processes and reports when they end.

An engine knows slots, nodes and processes, but not what a stage computes. The scheduler reads how a
stage ended from the store first, where the stage's own process writes it.
"""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from mixbench.errors import MixbenchError

GRACE_S = 15.0  # in which a stage that is told to end writes a checkpoint, before it is killed


def stage_command(root: Path, *keys: str) -> list[str]:
    """Return the command that runs one stage, or several interleaved, on every engine.

    With -P, nothing is imported from the working folder, which may have a file such as random.py.
    """
    return [sys.executable, "-P", "-m", "mixbench.worker", str(root), *keys]


class NotNow(MixbenchError):
    """A cluster does not take another stage now, but will later."""


class Ended(NamedTuple):
    """A stage whose process ended.

    Attributes
    ----------
    key
        Key of the stage.
    code
        Exit code of the process; minus the signal number if a signal killed it; None if the engine
        does not know it.
    how
        Reason for the end, if the engine knows one; otherwise empty.
    """

    key: str
    code: int | None
    how: Literal["", "out of memory", "timeout", "cancelled"] = ""


class Engine(Protocol):
    """Run stages as processes on some machines.

    Attributes
    ----------
    num_slots
        Number of stages that can run at a time, for estimates.
    gpus
        Number of GPUs per training on each node; 0 if stages run on the CPU.
    gpus_alone
        Number of GPUs that a stage of one process holds, such as an evaluation.
    outlives
        Whether the processes of stages keep running when the launcher ends.
    """

    num_slots: int
    gpus: float
    gpus_alone: float
    outlives: bool

    @property
    def free(self) -> bool:
        """Whether another stage can start now."""
        ...

    def adopt(self, keys: Iterable[str]) -> set[str]:
        """Return those of the stages that an earlier launcher started and that still run."""
        ...

    def start(self, keys: Sequence[str], log: Path) -> None:
        """Start one process for one or several stages; append its output to `log`.

        Raises
        ------
        NotNow
            If the stages must wait; `free` is false until it is worth another attempt.
        """
        ...

    def ended(self) -> list[Ended]:
        """Return the stages that ended since the last call."""
        ...

    def place(self, key: str) -> str:
        """Return a description of where a stage runs, or why it does not run yet."""
        ...

    def cancel(self, key: str) -> None:
        """Cancel a stage; a later call of `ended` returns it."""
        ...

    def stop(self) -> None:
        """Release all resources before the launcher ends; end the stages unless `outlives`."""
        ...
