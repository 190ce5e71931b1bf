"""Safe reading and writing of pickled dicts of arrays, the format in which CIFAR is published.

Unpickling can call any function that the file names. Here, the names of numpy's functions map to
placeholders that store their arguments, from which uint8 arrays are built afterwards. All other
names are refused.
"""

import codecs
import pickle  # noqa: TID251  # the official files are pickles
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixbench.errors import DataError

BYTE = "u1"


class _Dtype:
    """Placeholder for a numpy dtype."""

    def __init__(self, name: str, *_: object) -> None:
        self.name = name

    def __setstate__(self, state: object) -> None:
        """Ignore the byte order and other state, which single bytes do not have."""


class _Array:
    """Placeholder for a numpy array, which stores the pickled state."""

    def __setstate__(self, state: tuple[int, tuple[int, ...], _Dtype, bool, str | bytes]) -> None:
        self.state = state

    def array(self) -> NDArray[np.uint8]:
        """Return the array; raise ValueError unless it is uint8 in C order."""
        _version, shape, dtype, by_columns, content = self.state
        if dtype.name != BYTE or by_columns:
            raise ValueError(f"an array must have dtype {BYTE} in C order (got {dtype.name})")
        raw = content.encode("latin1") if isinstance(content, str) else content
        return np.frombuffer(raw, np.uint8).reshape(shape).copy()


def _reconstruct(*_: object) -> _Array:
    return _Array()


Placeholder = _Array | _Dtype | bytes
KNOWN: Mapping[tuple[str, str], Callable[..., Placeholder]] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): codecs.encode,
}


class _Unpickler(pickle.Unpickler):
    """Unpickler that accepts only arrays, numbers, strings and containers."""

    def find_class(self, module: str, name: str) -> Callable[..., Placeholder]:
        if (module, name) not in KNOWN:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is not allowed")
        return KNOWN[module, name]


def read_pickle(path: Path) -> dict[str, Any]:
    """Return the dict in a pickle file, whose arrays must be uint8.

    Raises
    ------
    DataError
        If the file cannot be read or contains anything else.
    """
    try:
        with path.open("rb") as file:
            content = _Unpickler(file, encoding="latin1").load()
        return {
            str(name): value.array() if isinstance(value, _Array) else value
            for name, value in content.items()
        }
    except Exception as error:  # a damaged pickle can raise any exception
        raise DataError(f"{path} must be a pickled dict of arrays ({error}).") from error


def write_pickle(path: Path, content: Mapping[str, Any]) -> None:
    """Write a dict as a pickle that Python 2 and Python 3 can read."""
    path.write_bytes(pickle.dumps(dict(content), protocol=2))
