"""Text files that list or annotate images, one per line, and JSON files of annotations."""

import json
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any

from mixbench.errors import DataError


def read_lines(path: Path) -> list[str]:
    """Return the non-empty lines of a text file.

    Raises
    ------
    DataError
        If the file cannot be read, or has no non-empty line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # without a byte order mark
        lines = [line for line in text.splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} must be a text file ({error}).") from error
    if not lines:
        raise DataError(f"{path} must have lines (got an empty file).")
    return lines


def read_json(path: Path) -> Any:
    """Return the content of a JSON file of annotations.

    Raises
    ------
    DataError
        If the file cannot be read or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{path} must hold annotations in JSON: {error}.") from error


def check_unique(values: Iterable[Hashable], what: str, where: Path) -> None:
    """Check that no value occurs twice.

    Parameters
    ----------
    values
        Ids or names.
    what
        What the values are, for the error message, as in "image id".
    where
        File that holds the values, for the error message.

    Raises
    ------
    DataError
        If a value occurs twice.
    """
    value, count = next(iter(Counter(values).most_common(1)), ("", 0))
    if count > 1:
        raise DataError(
            f"{where} must have each {what} once (got {value} {count} times). When you merge "
            "files, renumber them."
        )


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
