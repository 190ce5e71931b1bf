"""Find what the folders define: one file is one name. Nothing registers itself.

This module is the only importer of method and task files.
"""

import importlib
import importlib.util
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar

from mixbench.errors import InvalidUnit, UnknownName
from mixbench.registry.cards import Card, Kind, read_card

if TYPE_CHECKING:
    from mixbench.contract import Method, Task

Base = TypeVar("Base")

FOLDERS: dict[Kind, Path] = {
    "method": Path(importlib.import_module("mixbench.methods").__path__[0]),
    "task": Path(importlib.import_module("mixbench.tasks").__path__[0]),
}


def paths(kind: Kind) -> dict[str, Path]:
    """Return the file of every built-in unit by its name, sorted by name."""
    folder = FOLDERS[kind]
    files = {path.stem: path for path in folder.glob("[!_]*.py")}
    files |= {path.parent.name: path for path in folder.glob("[!_]*/__init__.py")}
    return dict(sorted(files.items()))


def find(kind: Kind, name: str) -> Card:
    """Return the card of a built-in unit, or of the file if `name` is a path to one.

    Raises
    ------
    UnknownName
        If no file defines the unit.
    """
    if name.endswith(".py") or "/" in name:
        return _card(Path(name), kind, "file")
    known = paths(kind)
    if name not in known:
        raise UnknownName(kind, name, known)
    return _card(known[name], kind, "builtin")


_card = cache(read_card)


def load_method(card: Card) -> "type[Method]":
    """Import the method's file and return its class."""
    from mixbench.contract import Method

    return _subclass(card, Method)


def load_task(card: Card) -> "type[Task]":
    """Import the task's file and return its class."""
    from mixbench.contract import Task

    return _subclass(card, Task)


def _subclass(card: Card, base: type[Base]) -> type[Base]:
    """Return the class that a unit's file defines, if it is what its kind must be."""
    unit = getattr(_module(card), card.class_name)
    if not (isinstance(unit, type) and issubclass(unit, base)):
        raise InvalidUnit(f"{card.path}: {card.class_name} must be a subclass of {base.__name__}.")
    return unit


def _module(card: Card) -> ModuleType:
    """Import a unit's file; a plugin's file gets a name of its own."""
    if card.source == "builtin":
        return importlib.import_module(card.module)
    spec = importlib.util.spec_from_file_location(card.module, card.path)
    if spec is None or spec.loader is None:
        raise InvalidUnit(f"{card.path} cannot be imported: it must be a Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[card.module] = module
    spec.loader.exec_module(module)
    return module
