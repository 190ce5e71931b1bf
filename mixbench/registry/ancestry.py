"""Base classes of a method's or task's class, found in the syntax trees of their files."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mixbench.errors import InvalidUnit
from mixbench.registry.modules import absolute_name, module_file
from mixbench.registry.syntax import parse

CONTRACT = "mixbench.contract"  # its declarations are common to all units


@dataclass(frozen=True, eq=False)
class ClassSource:
    """A class in the syntax tree of its file.

    Attributes
    ----------
    node
        Syntax tree of the class.
    tree
        Syntax tree of the whole file.
    path
        Path of the file.
    module
        Dotted name under which Python imports the file.
    """

    node: ast.ClassDef
    tree: ast.Module
    path: Path
    module: str


def ancestry(source: ClassSource) -> tuple[ClassSource, ...]:
    """Return a class and its base classes, in Python's method resolution order (MRO).

    The result omits the classes of `mixbench.contract` and bases whose files are not found. If a
    base that is not found declares anything, loading the class raises an error.

    Raises
    ------
    InvalidUnit
        If the bases have no consistent method resolution order.
    """
    sources: dict[type, ClassSource] = {}
    stand_in = _stand_in(source, sources, ())
    return tuple(sources[one] for one in stand_in.__mro__ if one in sources)


def _stand_in(
    source: ClassSource, sources: dict[type, ClassSource], below: tuple[str, ...]
) -> type:
    """Return an empty class with the same bases, so that Python computes the MRO."""
    name = f"{source.module}.{source.node.name}"
    known = {f"{one.module}.{one.node.name}": stand_in for stand_in, one in sources.items()}
    if name in known:
        return known[name]
    if name in below:
        raise InvalidUnit(f"{source.path}: {source.node.name} inherits from itself.")
    bases = tuple(_stand_in(base, sources, (*below, name)) for base in _bases(source))
    try:
        stand_in = type(source.node.name, bases, {})
    except TypeError as error:
        raise InvalidUnit(f"{source.path}, line {source.node.lineno}: {error}.") from error
    sources[stand_in] = source
    return stand_in


def _bases(source: ClassSource) -> Iterator[ClassSource]:
    """Yield the bases of a class whose files are found."""
    for base in source.node.bases:
        if isinstance(base, ast.Name | ast.Attribute):
            first, *rest = ast.unparse(base).split(".")
            own = _class_in(source.tree, first) if not rest else None
            if own is not None:
                yield ClassSource(own, source.tree, source.path, source.module)
                continue
            full = _imports(source.tree, source.path, source.module).get(first, first)
            found = _found(".".join((full, *rest)))
            if found is not None:
                yield found


@cache
def _found(name: str) -> ClassSource | None:
    """Return a class by its full name, following re-exports; None if it is not found."""
    module, _, name_of_class = name.rpartition(".")
    if not module or f"{module}.".startswith(f"{CONTRACT}."):
        return None
    if (path := module_file(module)) is None:
        return None
    tree = parse(path)
    node = _class_in(tree, name_of_class)
    if node is not None:
        return ClassSource(node, tree, path, module)
    passed_on = _imports(tree, path, module).get(name_of_class)
    return _found(passed_on) if passed_on else None


def _class_in(tree: ast.Module, name: str) -> ast.ClassDef | None:
    classes = (node for node in tree.body if isinstance(node, ast.ClassDef))
    return next((node for node in classes if node.name == name), None)


@cache
def _imports(tree: ast.Module, path: Path, module: str) -> dict[str, str]:
    """Return a mapping from the local name of each import in a file to its full name."""
    names = {}
    for node in tree.body:
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                names[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom):
            origin = absolute_name(node.module or "", node.level, path, module)
            names |= {alias.asname or alias.name: f"{origin}.{alias.name}" for alias in node.names}
    return names
