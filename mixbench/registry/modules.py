"""Location of the files of modules, without importing them, because an import may load torch."""

import importlib
import importlib.util
import sys
from functools import cache
from pathlib import Path
from typing import Literal

import mixbench
from mixbench.errors import InvalidUnit

Kind = Literal["method", "task"]
FOLDERS: dict[Kind, Path] = {
    "method": Path(importlib.import_module("mixbench.methods").__path__[0]),
    "task": Path(importlib.import_module("mixbench.tasks").__path__[0]),
}
# Base classes in these packages contain no mixbench declarations.
_OPAQUE = frozenset({"torch", *sys.stdlib_module_names})


@cache
def module_file(module: str) -> Path | None:
    """Return the file of a module; None if the module does not exist or is not searched."""
    top, *rest = module.split(".")
    if top in _OPAQUE:
        return None
    if top == mixbench.__name__:
        roots = {f"{kind}s": folder for kind, folder in FOLDERS.items()}
        root = roots.get(rest[0]) if rest else None
        place = root.joinpath(*rest[1:]) if root else _folder(top).joinpath(*rest)
    elif (folder := _folder(top)).name:
        place = folder.joinpath(*rest)
    else:
        return None
    candidates = (place / "__init__.py", place.with_suffix(".py"))
    return next((path for path in candidates if path.is_file()), None)


@cache
def _folder(package: str) -> Path:
    """Return a top-level package's folder, or a module's path without suffix; empty if none."""
    if package == mixbench.__name__:
        return Path(mixbench.__file__).parent
    spec = importlib.util.find_spec(package)  # does not import a top-level package
    if spec is None:
        return Path()
    places = spec.submodule_search_locations
    return Path(places[0]) if places else Path(spec.origin or "").with_suffix("")


def absolute_name(module: str, level: int, file: Path, own: str) -> str:
    """Return the full name of a module that a file imports by ``from MODULE import ...``.

    Parameters
    ----------
    module
        Name in the import statement, without leading dots.
    level
        Number of leading dots in the import statement.
    file
        File of the importing module.
    own
        Full name of the importing module.

    Raises
    ------
    InvalidUnit
        If the import goes beyond the top-level package.
    """
    if not level:
        return module
    package = own if file.name == "__init__.py" else own.rpartition(".")[0]
    try:
        return importlib.util.resolve_name("." * level + module, package)
    except ImportError as error:
        raise InvalidUnit(
            f"{file}: the import of {'.' * level}{module} goes beyond the top-level package. "
            "Use an absolute import."
        ) from error
