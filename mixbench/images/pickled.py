"""Pickled tables of arrays, the form in which CIFAR is published, without running what is in them.

A pickle may name any function to be called. Here it may name those that make numpy arrays.
"""

import pickle  # noqa: TID251  # the official files are pickles
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mixbench.errors import DataError

ARRAYS = {
    ("numpy.core.multiarray", "_reconstruct"): ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"): ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"): ("numpy", "ndarray"),
    ("numpy", "dtype"): ("numpy", "dtype"),
    ("_codecs", "encode"): ("_codecs", "encode"),
}


class ArrayUnpickler(pickle.Unpickler):
    """Refuses everything but arrays, numbers, texts and containers."""

    def find_class(self, module: str, name: str) -> Any:
        """Return one of the functions that make arrays.

        Raises
        ------
        UnpicklingError
            If another is named.
        """
        if (module, name) not in ARRAYS:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which has no place in data")
        return super().find_class(*ARRAYS[module, name])


def read_pickle(path: Path) -> dict[str, Any]:
    """Return the table in a file.

    Raises
    ------
    DataError
        If there is none, or something else.
    """
    try:
        with path.open("rb") as file:
            content = ArrayUnpickler(file, encoding="latin1").load()
    except (OSError, EOFError, pickle.UnpicklingError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path} must be a pickled table of arrays ({error}).") from error
    except (AttributeError, ImportError, IndexError) as error:
        raise DataError(f"{path} is damaged ({error}).") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} must be a pickled table (got {type(content).__name__}).")
    return content


def write_pickle(path: Path, content: Mapping[str, Any]) -> None:
    """Write a table as Python 2 and 3 read it."""
    path.write_bytes(pickle.dumps(dict(content), protocol=2))
