"""Reading of TOML files, such as settings and suites, into pydantic models."""

import tomllib
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from mixbench.errors import UsageError, one_line

Model = TypeVar("Model", bound=BaseModel)


def read_toml(path: Path, model: type[Model], what: str) -> Model:
    """Read a TOML file into a model.

    Parameters
    ----------
    path
        Path of the file.
    model
        Pydantic model that declares all fields.
    what
        Name of the kind of file in error messages, such as ``settings``.

    Raises
    ------
    UsageError
        If the file cannot be read, or a field is unknown or invalid.
    """
    got = "a large number"
    try:
        return model.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        where = one_line(".".join(map(str, first["loc"])), 200)
        with suppress(ValueError):  # the text of an integer of thousands of digits
            got = one_line(repr(first["input"]), 200)
        raise UsageError(f"The {what} {path}: {where}: {first['msg']} (got {got}).") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"The {what} {path} cannot be read: {error}.") from error
