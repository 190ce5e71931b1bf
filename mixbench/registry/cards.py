"""Read a method or task file without running it: its header, declarations and parameters.

Importing a method costs seconds, because it brings torch. What listing, planning and reporting
need to know is written in the file as literals and as calls of `mixbench.declare`, so it is read
from the syntax tree.
"""

import ast
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from mixbench import declare
from mixbench.declare.facts import OF_THE_SUBJECT
from mixbench.errors import InvalidUnit

Kind = Literal["method", "task"]
Source = Literal["builtin", "file", "package"]

REQUIRED: Mapping[Kind, tuple[str, ...]] = {
    "method": ("version",),
    "task": ("version", "data", "metrics", "models", "protocols", "synthetic"),
}
# The only names that a declaration or an annotation may use.
NAMES: dict[str, Any] = {
    **{name: value for name, value in vars(declare).items() if not name.startswith("_")},
    **{type_.__name__: type_ for type_ in (bool, int, float, str)},
    "Literal": Literal,
    "Annotated": typing.Annotated,
    "__builtins__": {},
}


@dataclass(frozen=True)
class Parameter:
    """One argument of a unit's ``__init__``: typed and defaulted, so that it can be set by name."""

    name: str
    annotation: str
    default: Any

    @property
    def type(self) -> Any:
        """The annotation as the type that it names."""
        return eval(self.annotation, NAMES)  # names of `declare` and builtin types only


@dataclass(frozen=True, eq=False)
class Card:
    """What a method or task file says of itself.

    Attributes
    ----------
    header
        The fields of the docstring's head by name: Paper, Source, Differs, Data, ...
    declared
        The class attributes that are data: version, sites, needs, metrics, protocols, ...
    defines
        Names of the methods that the class itself defines.
    module
        The name under which Python imports the file.
    distribution
        The installed package that brings it, with its version.
    """

    kind: Kind
    name: str
    path: Path
    source: Source
    class_name: str
    summary: str
    header: Mapping[str, str]
    parameters: tuple[Parameter, ...]
    declared: Mapping[str, Any]
    defines: frozenset[str]
    module: str
    distribution: str | None = None

    @cached_property
    def defaults(self) -> dict[str, Any]:
        """The value of every parameter that nobody set."""
        return {parameter.name: parameter.default for parameter in self.parameters}

    @property
    def version(self) -> int:
        """The author's version: bumped by every change that changes results."""
        return int(self.declared["version"])


def read_card(path: Path, kind: Kind, source: Source = "builtin") -> Card:
    """Read what the file at `path` declares.

    Raises
    ------
    InvalidUnit
        If the file is unreadable, not Python, or lacks what a unit must declare.
    """
    name = path.parent.name if path.name == "__init__.py" else path.stem
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidUnit(f"The {kind} file {path} cannot be read: {error}.") from error
    except SyntaxError as error:
        raise InvalidUnit(f"{path}, line {error.lineno}: {error.msg}.") from error
    if not re.fullmatch(r"[a-z_][a-z0-9_]*", name):
        raise InvalidUnit(
            f"The {kind} file {path} must be named in small letters, digits and underscores."
        )
    unit = _unit_class(tree, name, path)
    docstring = ast.get_docstring(tree) or ""
    declared = _declared(unit, path)
    required = set(REQUIRED[kind]) - set(OF_THE_SUBJECT if "evaluates" in declared else ())
    missing = sorted(required - declared.keys())
    if missing:
        raise InvalidUnit(
            f"{path}, line {unit.lineno}: {unit.name} must declare {', '.join(missing)} itself."
        )
    if not isinstance(declared["version"], int) or declared["version"] < 1:
        raise InvalidUnit(f"{path}: version must be 1 or more (got {declared['version']!r}).")
    return Card(
        kind=kind,
        name=name,
        path=path.resolve(),
        source=source,
        class_name=unit.name,
        summary=docstring.partition("\n\n")[0].replace("\n", " "),
        header=_header(docstring),
        parameters=tuple(_parameters(unit, path)),
        declared=declared,
        module=f"mixbench.{f'{kind}s' if source == 'builtin' else 'plugins'}.{name}",
        defines=frozenset(node.name for node in unit.body if isinstance(node, ast.FunctionDef)),
    )


def tells_of_data(path: Path) -> bool:
    """Tell whether a file's docstring has a field Data, as a task's has and a method's has not."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, SyntaxError):
        return False  # reading it as a unit will say what is wrong
    return "Data" in _header(ast.get_docstring(tree) or "")


def _unit_class(tree: ast.Module, name: str, path: Path) -> ast.ClassDef:
    """Return the only public class, or among several the one that the file is named after."""
    classes = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name[0] != "_"]
    named = [node for node in classes if node.name.lower() == name.replace("_", "")]
    chosen = named or classes
    if len(chosen) != 1:
        camel = "".join(part.capitalize() for part in name.split("_"))
        found = ", ".join(node.name for node in classes) or "no class"
        raise InvalidUnit(
            f"{path} must define one public class, or one named {camel}; found {found}."
        )
    return chosen[0]


def _header(docstring: str) -> dict[str, str]:
    """Return the fields of a docstring's head: a capitalised word, two spaces, its text."""
    fields: dict[str, str] = {}
    last = ""
    for line in docstring.splitlines():
        if match := re.match(r"([A-Z][a-z]+) {2,}(\S.*)", line):
            last = match[1]
            fields[last] = match[2].strip()
        elif last and line.startswith("    "):
            fields[last] += " " + line.strip()
        else:
            last = ""
    return fields


def _declared(unit: ast.ClassDef, path: Path) -> dict[str, Any]:
    """Return the values of the class's plain attributes."""
    declared: dict[str, Any] = {}
    for node in unit.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.AnnAssign) and node.value is not None:
            targets = [node.target]
        for target in targets:
            if isinstance(target, ast.Name) and not target.id.startswith("_"):
                value = typing.cast("ast.Assign", node).value
                declared[target.id] = _value(value, path, declared)
    return declared


def _value(node: ast.expr, path: Path, above: Mapping[str, Any] = MappingProxyType({})) -> Any:
    """Return the value of an expression made of literals and names of `mixbench.declare`.

    Parameters
    ----------
    above
        What the class has declared already; an expression may name it.

    Raises
    ------
    InvalidUnit
        If it is made of anything else.
    """
    code = compile(ast.Expression(node), str(path), "eval")
    try:
        return eval(code, {**above, **NAMES})  # nothing that runs code of its own
    except (NameError, TypeError, ValueError, AttributeError) as error:
        raise InvalidUnit(
            f"{path}, line {node.lineno}: a declaration must be made of literals and of what "
            f"mixbench.declare offers, so that it can be read without running the file ({error})."
        ) from error


def _parameters(unit: ast.ClassDef, path: Path) -> typing.Iterator[Parameter]:
    """Yield every argument of the class's own ``__init__``."""
    for node in unit.body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            yield from _arguments(node, path)


def _arguments(init: ast.FunctionDef, path: Path) -> typing.Iterator[Parameter]:
    plain, keyword = init.args.args[1:], init.args.kwonlyargs
    missing: list[ast.expr | None] = [None] * (len(plain) - len(init.args.defaults))
    defaults = [*missing, *init.args.defaults, *init.args.kw_defaults]
    for argument, default in zip([*plain, *keyword], defaults, strict=True):
        if argument.annotation is None or default is None:
            raise InvalidUnit(
                f"{path}, line {argument.lineno}: the parameter {argument.arg!r} must have a type "
                "and a default, so that it can be set by name."
            )
        _value(argument.annotation, path)
        yield Parameter(argument.arg, ast.unparse(argument.annotation), _value(default, path))
