"""Pickled tables of arrays, the form in which CIFAR is published, without running what is in them.

A pickle may name any function to be called. Here the names of numpy's functions stand for records
of what they are given, from which arrays of bytes are made afterwards; other names are refused.
"""

import codecs
import pickle  # noqa: TID251  # the official files are pickles
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mixbench.errors import DataError

BYTE = "u1"


class _Dtype:
    """What a pickle says of an array's type."""

    def __init__(self, name: str, *_: object) -> None:
        self.name = name

    def __setstate__(self, state: object) -> None:
        """Ignore byte order and the like: a byte has none."""


class _Array:
    """What a pickle says of an array."""

    state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def array(self) -> Any:
        """Return the array; anything but whole rows of bytes raises."""
        _version, shape, dtype, by_columns, content = self.state
        if dtype.name != BYTE or by_columns:
            raise ValueError(f"an array must be of {BYTE}, in rows (got {dtype.name})")
        raw = content.encode("latin1") if isinstance(content, str) else content
        return np.frombuffer(raw, np.uint8).reshape(shape).copy()


def _reconstruct(*_: object) -> _Array:
    return _Array()


KNOWN = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): codecs.encode,
}


class _Unpickler(pickle.Unpickler):
    """Makes records of arrays, numbers, texts and containers."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in KNOWN:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which has no place in data")
        return KNOWN[module, name]


def read_pickle(path: Path) -> dict[str, Any]:
    """Return the table in a file; its arrays are of bytes.

    Raises
    ------
    DataError
        If there is none, or something else.
    """
    try:
        with path.open("rb") as file:
            content = _Unpickler(file, encoding="latin1").load()
        return {
            str(name): value.array() if isinstance(value, _Array) else value
            for name, value in content.items()
        }
    except Exception as error:  # damage shows in every possible way
        raise DataError(f"{path} must be a pickled table of arrays ({error}).") from error


def write_pickle(path: Path, content: Mapping[str, Any]) -> None:
    """Write a table as Python 2 and 3 read it."""
    path.write_bytes(pickle.dumps(dict(content), protocol=2))
