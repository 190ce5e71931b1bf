"""Lookup of methods and tasks by name; the name of a file is the name of its unit.

A unit is a method or a task. Units need no registration. This module reads their files; only
`mixbench.contract.loading` imports them.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Literal, overload

from mixbench.errors import InvalidUnit, UnknownName
from mixbench.registry.cards import Card, MethodCard, Source, TaskCard, is_task_file, read_card
from mixbench.registry.modules import FOLDERS, Kind, module_file


@cache
def paths(kind: Kind) -> Mapping[str, Path]:
    """Return the files of all built-in units, by name and sorted by name."""
    folder = FOLDERS[kind]
    files = {path.stem: path for path in folder.glob("[!_]*.py")}
    files |= {path.parent.name: path for path in folder.glob("[!_]*/__init__.py")}
    return dict(sorted(files.items()))


def available(kind: Kind) -> list[str]:
    """Return the names of all units, both built in and from installed packages."""
    return sorted(paths(kind).keys() | packaged(kind).keys())


@cache
def packaged(kind: Kind) -> Mapping[str, tuple[EntryPoint, ...]]:
    """Return the entry points of units in installed packages, by name, without importing them."""
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for entry in entry_points(group=f"mixbench.{kind}s"):
        found[entry.name] = (*found.get(entry.name, ()), entry)
    return found


@overload
def find(kind: Literal["method"], name: str) -> MethodCard: ...


@overload
def find(kind: Literal["task"], name: str) -> TaskCard: ...


@overload
def find(kind: Kind, name: str) -> Card: ...


def find(kind: Kind, name: str) -> Card:
    """Return the card of a unit, given its name or the path of its file.

    Raises
    ------
    UnknownName
        If no unit has this name.
    InvalidUnit
        If several units have this name, or if the file does not define a valid unit.
    """
    if _is_path(name):
        known = _built_in_files(kind).get(Path(name).resolve())
        return _card(known, kind, "builtin") if known else _card(Path(name), kind, "file")
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


@cache
def _built_in_files(kind: Kind) -> Mapping[Path, Path]:
    """Return the files of all built-in units, by resolved path."""
    return {path.resolve(): path for path in paths(kind).values()}


def kind_of(name: str) -> Kind:
    """Return the kind of a unit, given its name or path: "task" if a task has it, else "method"."""
    is_task = is_task_file(Path(name)) if _is_path(name) else name in available("task")
    return "task" if is_task else "method"


def _is_path(name: str) -> bool:
    return name.endswith(".py") or "/" in name


@cache
def _packaged_card(kind: Kind, entry: EntryPoint) -> Card:
    """Return the card of the file that a package's entry point names.

    Raises
    ------
    InvalidUnit
        If the file does not exist, or if its name differs from the name of the entry point.
    """
    path = module_file(entry.module)
    if path is None or entry.name != entry.module.rpartition(".")[2]:
        raise InvalidUnit(
            f"The {kind} {entry.name} of {_distribution(entry)}: its entry point must name a "
            f"module {entry.name} (got {entry.value})."
        )
    card = _card(path, kind, "package", entry.module)
    return replace(card, distribution=_distribution(entry))


def _distribution(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unnamed package"


@cache
def _card(path: Path, kind: Kind, source: Source, module: str = "") -> Card:
    """Return the card of a file; an evaluation inherits attributes of its base task."""
    return read_card(path, kind, source, lambda name: find("task", name).attributes, module)
