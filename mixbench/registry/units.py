"""Find what the folders define: one file is one name. Nothing registers itself.

This module is the only importer of method and task files.
"""

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from mixbench.declare.facts import OF_THE_SUBJECT
from mixbench.errors import InvalidUnit, UnknownName
from mixbench.registry.cards import Card, Kind, Source, read_card

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


@cache
def _card(path: Path, kind: Kind, source: Source) -> Card:
    """Return what a file says; of an evaluation, also what the task says that it evaluates."""
    card = read_card(path, kind, source)
    if "evaluates" not in card.declared:
        return card
    subject = find("task", card.declared["evaluates"]).declared
    taken = {name: subject[name] for name in OF_THE_SUBJECT if name in subject}
    return replace(card, declared={**taken, **card.declared})


def load_method(card: Card) -> "type[Method]":
    """Import the method's file and return its class."""
    from mixbench.contract import Method

    return _subclass(card, Method)


def load_task(card: Card) -> "type[Task]":
    """Import the task's file and return its class."""
    from mixbench.contract import Task

    return _subclass(card, Task)


def make_task(
    card: Card, parameters: Mapping[str, Any], subject: Mapping[str, Any] | None = None
) -> "Task":
    """Return a task with its parameters; an evaluation, with the task whose models it evaluates.

    Parameters
    ----------
    subject
        That task's parameters; its defaults, if none are given.
    """
    from mixbench.contract import Evaluation

    task = load_task(card)(**parameters)
    if isinstance(task, Evaluation):
        other = find("task", task.evaluates)
        task.about(load_task(other)(**(other.defaults if subject is None else subject)))
    return task


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
