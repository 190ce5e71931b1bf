"""Cards: the declarations of method and task files, read without running the files.

Importing a method takes seconds, because it imports torch. Listing, planning and reporting need
only declarations, which a file makes with literals and calls of `mixbench.declare`. This module
reads them from the syntax trees of the file and of the base classes. A unit is a method or a task.
"""

import ast
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Lt
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass

from mixbench.declare import Archive, Data, Metric, Need, Recipe, Reference, Synthetic
from mixbench.declare.facts import NOT_INHERITED, OF_THE_BASE_TASK, ParameterValue
from mixbench.errors import InvalidUnit
from mixbench.registry.ancestry import ClassSource, ancestry
from mixbench.registry.modules import Kind
from mixbench.registry.plain_types import TypeForm, plain_type
from mixbench.registry.syntax import Evaluator, Value, parse

Source = Literal["builtin", "file", "package"]
Values = Mapping[str, ParameterValue]
Attributes = Mapping[str, Value]  # class attributes by name

REQUIRED: Mapping[Kind, tuple[str, ...]] = {
    "method": ("version",),
    "task": ("version", "data", "metrics", "models", "protocols", "synthetic"),
}
CHECKED = ConfigDict(extra="ignore")


@checked_dataclass(frozen=True, config=CHECKED, kw_only=True)
class Declaration:
    """The class attributes that methods and tasks both declare; see `mixbench.contract`."""

    version: Annotated[int, Ge(1)]
    needs: Mapping[str, Need] = field(default_factory=dict)
    by_protocol: Mapping[str, Values] = field(default_factory=dict)
    added: tuple[str, ...] = ()


@checked_dataclass(frozen=True, config=CHECKED, kw_only=True)
class MethodDeclaration(Declaration):
    """The class attributes that a method declares; see `mixbench.contract.Method`."""

    sites: tuple[str, ...] = ("input",)
    per_element: bool = False
    needs_attention: bool = False
    attention: Literal["class_token", "patches", "rollout"] = "class_token"
    ema_decay: Annotated[float, Ge(0), Lt(1)] = 0.0
    recipe_of: tuple[str, ...] = ()
    exempt: Mapping[str, str] = field(default_factory=dict)


@checked_dataclass(frozen=True, config=CHECKED, kw_only=True)
class TaskDeclaration(Declaration):
    """The class attributes that a task declares; see `mixbench.contract.Task`."""

    data: Data
    metrics: tuple[Metric, ...]
    models: tuple[str, ...]
    protocols: Mapping[str, Recipe]
    synthetic: Synthetic
    references: tuple[Reference, ...] = ()
    takes_timm: bool = False
    by_model: Mapping[str, Mapping[str, Values]] = field(default_factory=dict)
    published: Mapping[str, Archive] = field(default_factory=dict)
    variants: Mapping[str, Data] = field(default_factory=dict)
    evaluates: str = ""
    items_per_image: int = 1
    test_items_per_image: int = 1


@dataclass(frozen=True)
class Parameter:
    """An argument of a unit's ``__init__``, with a type and a default, so that users can set it.

    Attributes
    ----------
    name
        Name of the argument.
    annotation
        Annotation as it is written in the file.
    type
        Type that the annotation names: a type of `mixbench.declare`, a builtin type or a
        ``Literal``.
    default
        Default value.
    description
        Description of the parameter in the class's docstring.
    """

    name: str
    annotation: str
    type: TypeForm
    default: ParameterValue
    description: str = ""

    @property
    def plain_type(self) -> str:
        """Readable description of the type, for instance "integer >= 1"."""
        return plain_type(self.type)


@dataclass(frozen=True, eq=False)
class Card:
    """The declarations of a method or task file.

    Attributes
    ----------
    name
        Name of the method or task, which is the name of its file.
    path
        Absolute path of the file.
    source
        Origin of the file: part of mixbench, a file that the user named, or an installed package.
    class_name
        Name of the class that the file defines.
    summary
        First paragraph of the file's docstring.
    about
        First paragraph of the class's docstring; empty if it has none.
    header
        Fields of the docstring's header by name: Paper, Source, Differs, Data, ...
    parameters
        Arguments of the class's ``__init__``.
    declared
        Validated class attributes, including inherited ones.
    attributes
        Class attributes before validation, including those that only the unit itself uses.
    defines
        Names of the Python methods that the class defines or inherits, except from
        `mixbench.contract`.
    module
        Dotted name under which Python imports the file.
    distribution
        Name and version of the installed package that contains the file; None if there is none.
    """

    name: str
    path: Path
    source: Source
    class_name: str
    summary: str
    about: str
    header: Mapping[str, str]
    parameters: tuple[Parameter, ...]
    declared: Declaration
    attributes: Attributes
    defines: frozenset[str]
    module: str
    distribution: str | None = None

    @property
    def kind(self) -> Kind:
        """Kind of the unit: "method" or "task"."""
        return "task" if isinstance(self, TaskCard) else "method"

    @cached_property
    def defaults(self) -> dict[str, ParameterValue]:
        """Default value of each parameter, by name."""
        return {parameter.name: parameter.default for parameter in self.parameters}

    @property
    def version(self) -> int:
        """Version that the author raises with every change that changes results."""
        return self.declared.version


@dataclass(frozen=True, eq=False)
class MethodCard(Card):
    """The card of a method."""

    declared: MethodDeclaration


@dataclass(frozen=True, eq=False)
class TaskCard(Card):
    """The card of a task."""

    declared: TaskDeclaration


METHOD, TASK = TypeAdapter(MethodDeclaration), TypeAdapter(TaskDeclaration)


def read_card(
    path: Path,
    kind: Kind,
    source: Source = "builtin",
    evaluated: Callable[[str], Attributes] = lambda _: {},
    module: str = "",
) -> Card:
    """Read the declarations of the file at `path`.

    Parameters
    ----------
    path
        Path of the method or task file.
    kind
        Kind of unit that the file must define: "method" or "task".
    source
        Origin of the file: "builtin", "file" or "package".
    evaluated
        Function that returns the attributes of a task by its name; an evaluation inherits some of
        the attributes of its base task.
    module
        Dotted name under which Python imports the file; empty to derive it from `source`.

    Raises
    ------
    InvalidUnit
        If the file cannot be read, is not valid Python, or lacks a required declaration.
    """
    name = path.parent.name if path.name == "__init__.py" else path.stem
    tree = parse(path)
    if not re.fullmatch(r"[a-z_][a-z0-9_]*", name):
        raise InvalidUnit(
            f"The name of the {kind} file {path} must consist of lowercase letters, digits and "
            "underscores. Rename the file."
        )
    unit = _unit_class(tree, name, path)
    module = module or f"mixbench.{f'{kind}s' if source == 'builtin' else 'plugins'}.{name}"
    classes = ancestry(ClassSource(unit, tree, path, module))
    own, *inherited = (_attributes(one) for one in classes)
    attributes = {n: v for found in reversed(inherited) for n, v in found.items()}
    attributes = {n: v for n, v in attributes.items() if n not in NOT_INHERITED} | own
    if isinstance(task := attributes.get("evaluates"), str):
        if task == name:
            raise InvalidUnit(f"{path}: `evaluates` must name another task (got {task!r}).")
        theirs = evaluated(task)
        attributes = {n: theirs[n] for n in OF_THE_BASE_TASK if n in theirs} | attributes
    missing = sorted({*REQUIRED[kind]} - attributes.keys()) or sorted({"version"} - own.keys())
    if missing:
        raise InvalidUnit(
            f"{path}, line {unit.lineno}: {unit.name} must declare {', '.join(missing)} itself."
        )
    docstring = ast.get_docstring(tree) or ""
    facts: dict[str, Any] = {
        "name": name,
        "path": path.resolve(),
        "source": source,
        "class_name": unit.name,
        "summary": _first_paragraph(docstring),
        "about": _first_paragraph(ast.get_docstring(unit) or ""),
        "header": _header(docstring),
        "parameters": tuple(_parameters(classes)),
        "attributes": attributes,
        "defines": frozenset(_methods(classes)),
        "module": module,
    }
    try:
        if kind == "method":
            return MethodCard(declared=METHOD.validate_python(attributes), **facts)
        return TaskCard(declared=TASK.validate_python(attributes), **facts)
    except ValidationError as error:
        raise InvalidUnit(f"{path}: {_first_of(error)}") from error


def is_task_file(path: Path) -> bool:
    """Return whether a file's docstring has a field Data, which only tasks have."""
    try:
        tree = parse(path)
    except InvalidUnit:
        return False  # read_card raises the error
    return "Data" in _header(ast.get_docstring(tree) or "")


def _first_of(error: ValidationError) -> str:
    """Return the first validation error of a declaration, as one sentence."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    must = first["msg"].replace("Input should be", "must be")
    return f"{where} {must} (got {first['input']!r})."


def _unit_class(tree: ast.Module, name: str, path: Path) -> ast.ClassDef:
    """Return the only public class, or, if there are several, the one named like the file."""
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


def _first_paragraph(docstring: str) -> str:
    return docstring.partition("\n\n")[0].replace("\n", " ")


def _header(docstring: str) -> dict[str, str]:
    """Return the fields of a docstring's header: a capitalised word, two spaces and a text."""
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


def _attributes(source: ClassSource) -> dict[str, Value]:
    """Return the values of a class's public attributes."""
    evaluator = Evaluator(source.path)
    for node in source.node.body:
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            continue
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            if isinstance(target, ast.Name) and not target.id.startswith("_"):
                evaluator.declared[target.id] = evaluator.value(node.value)
    return evaluator.declared


def _methods(classes: Sequence[ClassSource]) -> Iterator[str]:
    """Yield the names of the Python methods that the classes define."""
    for source in classes:
        yield from (node.name for node in source.node.body if isinstance(node, ast.FunctionDef))


def _parameters(classes: Sequence[ClassSource]) -> Iterator[Parameter]:
    """Yield each argument of the ``__init__`` that Python would call."""
    described: dict[str, str] = {}
    for source in reversed(classes):
        described |= described_parameters(ast.get_docstring(source.node) or "")
    for source in classes:
        for node in source.node.body:
            if isinstance(node, ast.FunctionDef) and node.name == "__init__":
                yield from _arguments(node, source.path, described)
                return


def _arguments(
    init: ast.FunctionDef, path: Path, described: Mapping[str, str]
) -> Iterator[Parameter]:
    evaluator = Evaluator(path)
    plain, keyword = init.args.args[1:], init.args.kwonlyargs
    missing: list[ast.expr | None] = [None] * (len(plain) - len(init.args.defaults))
    defaults = [*missing, *init.args.defaults, *init.args.kw_defaults]
    for argument, default in zip([*plain, *keyword], defaults, strict=True):
        if argument.annotation is None or default is None:
            raise InvalidUnit(
                f"{path}, line {argument.lineno}: the parameter {argument.arg!r} must have a type "
                "and a default, so that it can be set by name."
            )
        value = evaluator.value(default)
        if not is_parameter_value(value):
            raise InvalidUnit(
                f"{path}, line {argument.lineno}: the default of the parameter {argument.arg!r} "
                f"must be a bool, finite number, string or tuple of them (got {value!r})."
            )
        yield Parameter(
            argument.arg,
            ast.unparse(argument.annotation),
            evaluator.type(argument.annotation),
            value,
            described.get(argument.arg, ""),
        )


def is_parameter_value(value: Value) -> bool:
    """Return whether a value can be stored as a parameter; JSON has no infinity and no NaN."""
    if isinstance(value, tuple):
        return all(not isinstance(item, tuple) and is_parameter_value(item) for item in value)
    return isinstance(value, bool | int | str) or (isinstance(value, float) and isfinite(value))


def described_parameters(docstring: str) -> dict[str, str]:
    """Return the description of each parameter in a numpy docstring, joined into one line."""
    _, _, section = docstring.partition("Parameters\n----------\n")
    section = re.split(r"\n\n[A-Z]\w+\n-+\n", section)[0]
    found: dict[str, str] = {}
    names: list[str] = []
    for line in section.splitlines():
        if line and not line.startswith(" "):
            names = [name.strip() for name in line.partition(" : ")[0].split(",")]
        elif line.strip():
            found |= {name: f"{found.get(name, '')} {line.strip()}".strip() for name in names}
    return found
