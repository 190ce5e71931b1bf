"""What an engine owes: it places stages as processes, and says when they have ended.

An engine knows slots, nodes and processes, not what a stage means. What a stage's end means is read
from the store first, where the stage itself left it.
"""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Protocol


def stage_command(root: Path, *keys: str) -> list[str]:
    """Return the command that runs a stage, the same on every engine; or several in turns."""
    return [sys.executable, "-m", "mixbench.worker", str(root), *keys]


class Ended(NamedTuple):
    """A stage whose process ended.

    Attributes
    ----------
    code
        Its exit code; negative: the signal that ended it; None where the engine cannot know.
    how
        What the engine knows beside that.
    """

    key: str
    code: int | None
    how: Literal["", "out of memory", "timeout", "cancelled"] = ""


class Engine(Protocol):
    """Places stages.

    Attributes
    ----------
    num_slots
        How many stages may run at a time, for estimates.
    gpus
        Of a stage; 0 where it runs on processors.
    outlives
        Whether its processes go on when the launcher ends.
    """

    num_slots: int
    gpus: float
    outlives: bool

    @property
    def free(self) -> bool:
        """Whether another stage can be started now."""
        ...

    def adopt(self, keys: Iterable[str]) -> set[str]:
        """Return which of the stages run already, started by an earlier launcher."""
        ...

    def start(self, keys: Sequence[str], log: Path) -> None:
        """Start one process for a stage, or for several; what it prints is appended to `log`."""
        ...

    def ended(self) -> list[Ended]:
        """Return the stages that ended since the last call."""
        ...

    def place(self, key: str) -> str:
        """Say where a stage runs, or why it does not yet."""
        ...

    def cancel(self, key: str) -> None:
        """End a stage; it is then among those that ended."""
        ...

    def stop(self) -> None:
        """Let go of everything, because the launcher ends; what outlives it goes on."""
        ...
