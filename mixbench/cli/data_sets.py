"""Look up data sets by the names that commands accept, and check their folders."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mixbench.declare import Data
from mixbench.errors import DataError, DataFull, UnknownName, UsageError, naming_full_disk

if TYPE_CHECKING:
    from mixbench.datasets.locate import DataSet


def data_set(name: str) -> "DataSet":
    """Return a data set, given its name, a task that reads it, or the file of such a task.

    Raises
    ------
    UnknownName
        If no data set and no task has this name.
    """
    from mixbench.datasets.locate import data_sets_by_name, data_sets_of
    from mixbench.registry.units import available, find

    if name.endswith(".py"):
        return data_sets_of(find("task", name))[0]
    known = data_sets_by_name()
    tasks = {task for task in available("task") if not find("task", task).declared.data.own}
    if name not in known and name not in tasks:
        raise UnknownName("data set", name, {*known, *tasks})
    return data_sets_of(find("task", name))[0] if name in tasks else known[name][0]


def missing(declared: Data, folder: Path) -> list[str]:
    """Return the declared files and folders that are missing in a data set's folder."""
    return [
        path for path in (*declared.files, *declared.file_counts) if not (folder / path).exists()
    ]


def empty(folder: Path) -> Path:
    """Return the absolute path of a folder.

    Raises
    ------
    UsageError
        If it contains anything.
    """
    folder = folder.expanduser().resolve()
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} must be empty: remove its contents or choose another --to.")
    return folder


@contextmanager
def moved_into_place(folder: Path) -> Iterator[Path]:
    """Yield a new folder, which becomes `folder`, missing or empty, if the block succeeds."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        made = Path(scratch) / folder.name
        made.mkdir()
        yield made
        if folder.exists():
            folder.rmdir()
        made.rename(folder)


@contextmanager
def filling(folder: Path) -> Iterator[None]:
    """Convert write errors inside the block into a `DataError` that names the folder.

    Raises
    ------
    DataError
        If the folder cannot be written to.
    """
    try:
        with naming_full_disk(folder, DataFull):
            yield
    except OSError as error:
        raise DataError(
            f"{folder} cannot be written to ({error.strerror or error}): choose another folder "
            "with --to."
        ) from error
