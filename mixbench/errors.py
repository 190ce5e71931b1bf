"""What can go wrong that the user can put right.

* MixbenchError        one sentence: which input, what it must be, what it got, what to do
  - UsageError         the command asks for what does not exist or may not be
      - UnknownName    a method, task, model, protocol or parameter that nothing defines
      - BadParameter   a value of the wrong type or out of range
      - InvalidUnit    a method or task file that breaks its contract
  - DataError          data that is missing, corrupt or not what the task reads
      - DataFull       no room left for it
  - Damaged            a file of the store that is not what was written
      - DamagedStage   the same, of a finished stage, which must be computed again
  - StoreFull          no room left on the store's disk
  - Diverged           a loss that is not finite: a result of the method, not a crash
"""

import difflib
import errno
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


class MixbenchError(Exception):
    """Base of every error that mixbench raises on purpose."""

    exit_code = 1


class UsageError(MixbenchError):
    """The command asks for what does not exist or may not be."""

    exit_code = 2


class UnknownName(UsageError):
    """Nothing of the given kind has this name; the message lists the known ones, or some."""

    def __init__(
        self, kind: str, name: str, known: Iterable[str], shown: Iterable[str] | None = None
    ) -> None:
        names = sorted(known)
        first = names if shown is None else list(shown)
        close = difflib.get_close_matches(name, first) or difflib.get_close_matches(name, names)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        listed = ", ".join(first) or "none"
        super().__init__(f"No {kind} {name!r}.{hint} Known: {listed}.")


class BadParameter(UsageError):
    """A parameter's value has the wrong type or is out of range."""


class InvalidUnit(UsageError):
    """A method or task file breaks its contract."""


class DataError(MixbenchError):
    """Data is missing, corrupt, or not what the task reads."""


class Damaged(MixbenchError):
    """A file of the store is not what was written."""


class DamagedStage(Damaged):
    """A file of a finished stage is not what was written."""

    def __init__(self, key: str, path: Path) -> None:
        self.key = key
        super().__init__(f"{path} is not what was written; its stage must be computed again.")


class StoreFull(MixbenchError):
    """The disk under the store has no room left."""

    def __init__(self, root: Path) -> None:
        super().__init__(
            f"The disk under the store {root} is full. What was finished is safe: free some room "
            "(mixbench cache gc) or choose another place (--store), then give the same command "
            "again."
        )


class DataFull(DataError):
    """The disk under a data set has no room left."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            f"The disk under {folder} is full: free some room, or choose another place (--to), "
            "then give the same command again."
        )


class Diverged(MixbenchError):
    """The loss is not finite."""


@contextmanager
def naming_full_disk(
    root: Path, refusal: Callable[[Path], MixbenchError] = StoreFull
) -> Iterator[None]:
    """Turn the operating system's "no space left" into a sentence about a folder."""
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        raise refusal(root) from error
