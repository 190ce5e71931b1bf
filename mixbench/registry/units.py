"""Find what the folders define: one file is one name. Nothing registers itself.

This module is the only importer of method and task files.
"""

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from mixbench.declare.facts import OF_THE_SUBJECT
from mixbench.errors import InvalidUnit, UnknownName
from mixbench.registry.cards import Card, Kind, Source, read_card, tells_of_data

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


def available(kind: Kind) -> list[str]:
    """Return the names of all units: built-in ones, and those of installed packages."""
    return sorted(paths(kind).keys() | packaged(kind).keys())


@cache
def packaged(kind: Kind) -> Mapping[str, tuple[EntryPoint, ...]]:
    """Return what installed packages offer, by name, from their metadata: nothing is imported."""
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for entry in entry_points(group=f"mixbench.{kind}s"):
        found[entry.name] = (*found.get(entry.name, ()), entry)
    return found


def find(kind: Kind, name: str) -> Card:
    """Return the card of a unit by its name, or of the file if `name` is a path to one.

    Raises
    ------
    UnknownName
        If nothing defines the unit.
    InvalidUnit
        If it is defined twice, or its file is none.
    """
    if _is_path(name):
        return _card(Path(name), kind, "file")
    builtin, offered = paths(kind).get(name), packaged(kind).get(name, ())
    if (builtin is not None) + len(offered) > 1:
        owners = [*(["mixbench"] if builtin else []), *map(_distribution, offered)]
        raise InvalidUnit(
            f"The {kind} {name} is defined by {' and by '.join(owners)}: uninstall one of them."
        )
    if offered:
        return _packaged_card(kind, offered[0])
    if builtin is None:
        raise UnknownName(kind, name, available(kind))
    return _card(builtin, kind, "builtin")


def kind_of(name: str) -> Kind:
    """Return what a name or a path is of: a task if one is called so, else a method."""
    is_task = tells_of_data(Path(name)) if _is_path(name) else name in available("task")
    return "task" if is_task else "method"


def _is_path(name: str) -> bool:
    return name.endswith(".py") or "/" in name


@cache
def _packaged_card(kind: Kind, entry: EntryPoint) -> Card:
    """Return what the file says that a package's entry point names.

    Raises
    ------
    InvalidUnit
        If there is no such file, or it has another name.
    """
    top, *rest = entry.module.split(".")
    spec = importlib.util.find_spec(top)  # of a package's top alone, which imports nothing
    places = spec.submodule_search_locations if spec else None
    base = Path(places[0]).joinpath(*rest) if places else Path(top)
    path = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
    if not path.is_file() or entry.name != base.name:
        raise InvalidUnit(
            f"The {kind} {entry.name} of {_distribution(entry)}: its entry point must name a "
            f"module {entry.name} (got {entry.value})."
        )
    card = _card(path, kind, "package")
    return replace(card, module=entry.module, distribution=_distribution(entry))


def _distribution(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unnamed package"


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
    if card.source != "file":
        try:
            return importlib.import_module(card.module)
        except Exception as error:  # whatever a package raises
            raise InvalidUnit(_why_not(card, error)) from error
    spec = importlib.util.spec_from_file_location(card.module, card.path)
    if spec is None or spec.loader is None:
        raise InvalidUnit(f"{card.path} cannot be imported: it must be a Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[card.module] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever a plugin raises
        del sys.modules[card.module]
        raise InvalidUnit(_why_not(card, error)) from error
    return module


def _why_not(card: Card, error: Exception) -> str:
    """Say in which line of its file a unit could not be imported, and what to do."""
    line = line_of(card, error)
    where = f"{card.path}, line {line}" if line else str(card.path)
    what = f"{where}: {type(error).__name__}: {error}"
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"{what}. Install it where mixbench runs: pip install {error.name.partition('.')[0]}"
    return f"{what}. The file must import without running anything that can fail."


def line_of(card: Card, error: Exception) -> int | None:
    """Return the last line of a unit's own file that an error came through; None if none did."""
    frames = traceback.extract_tb(error.__traceback__)
    inside = [frame.lineno for frame in frames if Path(frame.filename).resolve() == card.path]
    return inside[-1] if inside else None
