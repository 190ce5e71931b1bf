"""A data set as commands name it, and the folder that it fills."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mixbench.declare import Data
from mixbench.errors import DataError, DataFull, UnknownName, naming_full_disk

if TYPE_CHECKING:
    from mixbench.datasets.locate import DataSet


def data_set(name: str) -> "DataSet":
    """Return a data set by its name, by that of a task that reads it, or by the task's file."""
    from mixbench.datasets.locate import data_sets_by_name, data_sets_of
    from mixbench.registry.units import available, find

    if name.endswith(".py"):
        return data_sets_of(find("task", name))[0]
    known = data_sets_by_name()
    tasks = set(available("task"))
    if name not in known and name not in tasks:
        raise UnknownName("data set", name, {*known, *tasks})
    return data_sets_of(find("task", name))[0] if name in tasks else known[name][0]


def missing(declared: Data, folder: Path) -> list[str]:
    """Return the files and folders that a data set's folder lacks."""
    return [
        path for path in (*declared.files, *declared.file_counts) if not (folder / path).exists()
    ]


@contextmanager
def filling(folder: Path) -> Iterator[None]:
    """Name a folder that nothing can be written to."""
    try:
        with naming_full_disk(folder, DataFull):
            yield
    except OSError as error:
        raise DataError(
            f"{folder} cannot be written to ({error.strerror or error}): choose another place by "
            "--to."
        ) from error
