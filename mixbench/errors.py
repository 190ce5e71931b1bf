"""Exceptions for errors that the user can fix.

* MixbenchError        base; the message says what was given, what it must be, and what to do next
  - UsageError         the command is invalid or names something that does not exist
      - UnknownName    no method, task, model, protocol or parameter has this name
      - BadParameter   a parameter value has the wrong type or is out of range
      - InvalidUnit    a method or task file violates its contract
  - DataError          data is missing, corrupt or in the wrong format for the task
      - DamagedImage   a validation or test image cannot be decoded; the whole run ends
      - DataMissing    data or published weights are not on this machine
      - DataFull       the disk of a data set is full
  - Damaged            a file in the store is corrupt
      - DamagedStage   a file of a finished stage is corrupt; the stage must be recomputed
  - StoreFull          the disk of the store is full
  - Diverged           the loss is not finite: a result of the method, not a crash
  - NotAdopted         the result of earlier code cannot count for the current code
"""

import difflib
import errno
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def printable(text: str) -> str:
    """Return a text without bytes that are not UTF-8, which file names may hold."""
    return text.encode(errors="backslashreplace").decode()


def one_line(text: str, longest: int = 1000) -> str:
    """Return a text as one line of printable characters, cut to a length."""
    line = " ".join(printable(text).split())
    line = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in line)
    return line if len(line) <= longest else f"{line[: longest - 3]}..."


class MixbenchError(Exception):
    """Base class of all errors that mixbench raises deliberately."""

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class UsageError(MixbenchError):
    """The command is invalid or names something that does not exist."""

    exit_code = 2


class UnknownName(UsageError):
    """No object of the given kind has this name; the message suggests known names.

    Parameters
    ----------
    kind
        Kind of the object, as in "method" or "data set".
    name
        Name that the user gave.
    known
        All valid names.
    shown
        Names that the message lists, in this order; by default, all of `known`, sorted.
    """

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
    """A method or task file violates its contract."""


class DataError(MixbenchError):
    """Data is missing, corrupt, or in the wrong format for the task."""


class DamagedImage(DataError):
    """A validation or test image cannot be decoded."""


class Damaged(MixbenchError):
    """A file in the store is corrupt: its content differs from what was written."""


class DamagedStage(Damaged):
    """A file of a finished stage is corrupt.

    Parameters
    ----------
    root
        Folder of the store.
    key
        Key of the stage that the file belongs to.
    path
        Path of the corrupt or missing file.
    """

    def __init__(self, root: Path, key: str, path: Path) -> None:
        self.root, self.key = root, key
        super().__init__(
            f"{path} is corrupt or missing. Put its stage aside with `mixbench cache gc --verify`, "
            "and run the same cells again to recompute it."
        )


class StoreFull(MixbenchError):
    """The disk of the store is full.

    Parameters
    ----------
    root
        Folder of the store.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(
            f"The disk of the store {root} is full. Finished stages are safe. Free some space "
            "(mixbench cache gc) or choose another folder (--store), then run the same command "
            "again."
        )


class DataMissing(DataError):
    """The data of a task, or weights that it starts from, are not on this machine."""


class DataFull(DataError):
    """The disk of a data set is full.

    Parameters
    ----------
    folder
        Folder of the data set.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(
            f"The disk of {folder} is full: free some space, or choose another folder (--to), "
            "then run the same command again."
        )


class Diverged(MixbenchError):
    """The loss is not finite."""


class NotAdopted(MixbenchError):
    """The result of an earlier training cannot count for the current code.

    Parameters
    ----------
    why
        Why it cannot.
    """

    def __init__(self, why: str) -> None:
        super().__init__(f"The earlier result is not adopted: {why}.")


@contextmanager
def naming_full_disk(
    root: Path, refusal: Callable[[Path], MixbenchError] = StoreFull
) -> Iterator[None]:
    """Convert an error that the disk or the quota is full into a MixbenchError.

    Parameters
    ----------
    root
        Folder whose disk the message names.
    refusal
        Exception class to raise, called with `root`.

    Raises
    ------
    MixbenchError
        If the disk or the quota is full.
    Exception
        If the block fails for another reason.
    """
    try:
        yield
    except Exception as error:
        if not _is_full(error):
            raise
        raise refusal(root) from error


def _is_full(error: Exception) -> bool:
    """Return whether an error is the operating system's "no space left", also of safetensors."""
    if isinstance(error, OSError):
        return error.errno in FULL
    if type(error).__name__ != "SafetensorError":  # its module is slow to import
        return False
    return any(f"(os error {number})" in str(error) for number in FULL)
