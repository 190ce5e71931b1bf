"""Text files that list or annotate images, one per line."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from mixbench.errors import DataError


def read_lines(path: Path) -> list[str]:
    """Return the non-empty lines of a text file.

    Raises
    ------
    DataError
        If the file cannot be read, or has no non-empty line.
    """
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} must be a text file ({error}).") from error
    if not lines:
        raise DataError(f"{path} must have lines (got an empty file).")
    return lines


def first_names(found: Sequence[str], number: int, data: str, where: Path) -> list[str]:
    """Return the first `number` class names of a data set.

    Parameters
    ----------
    found
        Names of all classes of the data set, in order.
    number
        Number of classes that the task uses.
    data
        Name of the data set, for the error message.
    where
        File or folder that defines the classes, for the error message.

    Raises
    ------
    DataError
        If the data set has fewer than `number` classes.
    """
    if len(found) < number:
        raise DataError(
            f"{where} has {len(found)} classes, but the task needs {number}: set the task's "
            f"parameter classes to {len(found)} or less, or use the complete {data} data."
        )
    return list(found[:number])


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write lines to a text file."""
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
