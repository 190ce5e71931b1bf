"""Text files that list and annotate images, a line each."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from mixbench.errors import DataError


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file that are not empty.

    Raises
    ------
    DataError
        If it cannot be read, or has none.
    """
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} must be a text file ({error}).") from error
    if not lines:
        raise DataError(f"{path} must have lines (got an empty file).")
    return lines


def first_names(found: Sequence[str], number: int, data: str, where: Path) -> list[str]:
    """Return the names of the classes that take part, out of those that the data has.

    Raises
    ------
    DataError
        If it has fewer.
    """
    if len(found) < number:
        raise DataError(
            f"{where} has {len(found)} classes, and {number} are asked for: set the task's "
            f"parameter classes to {len(found)} or less, or give all of {data}."
        )
    return list(found[:number])


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write a text file."""
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
