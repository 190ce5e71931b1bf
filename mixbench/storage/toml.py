"""What people settle in TOML files, read into models that know every field."""

import tomllib
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from mixbench.errors import UsageError

Model = TypeVar("Model", bound=BaseModel)


def read_toml(path: Path, model: type[Model], what: str) -> Model:
    """Return the content of a file.

    Parameters
    ----------
    what
        It is called in errors.

    Raises
    ------
    UsageError
        If it cannot be read, or a field is unknown or has another form.
    """
    try:
        return model.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"The {what} {path} cannot be read: {error}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UsageError(
            f"The {what} {path}: {where}: {first['msg']} (got {first['input']!r})."
        ) from error
