"""What a method or task file declares, read without running it.

Importing a method costs seconds, because it brings torch. What listing, planning and reporting
need to know is written in the file as literals and as calls of `mixbench.declare`, so it is read
from the syntax tree, and from those of the classes that the unit inherits from.
"""

import ast
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass

from mixbench.declare import Archive, Data, Metric, Need, Recipe, Reference, Synthetic
from mixbench.declare.facts import OF_THE_BASE_TASK, ParameterValue
from mixbench.errors import InvalidUnit
from mixbench.registry.ancestry import ClassSource, ancestry
from mixbench.registry.modules import Kind
from mixbench.registry.plain_types import plain_type
from mixbench.registry.syntax import Evaluator, parse

Source = Literal["builtin", "file", "package"]
Values = Mapping[str, ParameterValue]
Attributes = Mapping[str, object]  # of a class, by name

REQUIRED: Mapping[Kind, tuple[str, ...]] = {
    "method": ("version",),
    "task": ("version", "data", "metrics", "models", "protocols", "synthetic"),
}
CHECKED = ConfigDict(extra="ignore")


@checked_dataclass(frozen=True, config=CHECKED, kw_only=True)
class Declaration:
    """What methods and tasks both declare: the class's plain attributes; see their contracts."""

    version: Annotated[int, Ge(1)]
    needs: Mapping[str, Need] = field(default_factory=dict)
    by_protocol: Mapping[str, Values] = field(default_factory=dict)


@checked_dataclass(frozen=True, config=CHECKED, kw_only=True)
class MethodDeclaration(Declaration):
    """What a method's class declares; see `mixbench.contract.Method`."""

    sites: tuple[str, ...] = ("input",)
    exempt: Mapping[str, str] = field(default_factory=dict)


@checked_dataclass(frozen=True, config=CHECKED, kw_only=True)
class TaskDeclaration(Declaration):
    """What a task's class declares; see `mixbench.contract.Task`."""

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


@dataclass(frozen=True)
class Parameter:
    """One argument of a unit's ``__init__``: typed and defaulted, so that it can be set by name.

    Attributes
    ----------
    annotation
        The type as the file has it.
    type
        The type itself: one of `mixbench.declare`, a builtin one or a ``Literal``.
    description
        What the class's docstring says about it.
    """

    name: str
    annotation: str
    type: Any
    default: ParameterValue
    description: str = ""

    @property
    def plain_type(self) -> str:
        """The type in words: "integer >= 1"."""
        return plain_type(self.type)


@dataclass(frozen=True, eq=False)
class Card:
    """What a method or task file says about its unit.

    Attributes
    ----------
    header
        The fields of the docstring's head by name: Paper, Source, Differs, Data, ...
    declared
        The plain attributes of the class, inherited ones included.
    attributes
        The same, as they are written, with those that only the unit itself uses.
    defines
        Names of the methods that the class defines or inherits, except from the contract.
    module
        The name under which Python imports the file.
    distribution
        The installed package that brings it, with its version.
    """

    name: str
    path: Path
    source: Source
    class_name: str
    summary: str
    header: Mapping[str, str]
    parameters: tuple[Parameter, ...]
    declared: Declaration
    attributes: Attributes
    defines: frozenset[str]
    module: str
    distribution: str | None = None

    @property
    def kind(self) -> Kind:
        """What the file defines."""
        return "task" if isinstance(self, TaskCard) else "method"

    @cached_property
    def defaults(self) -> dict[str, ParameterValue]:
        """The value of every parameter that nobody set."""
        return {parameter.name: parameter.default for parameter in self.parameters}

    @property
    def version(self) -> int:
        """The author's version: raised by every change that changes results."""
        return self.declared.version


@dataclass(frozen=True, eq=False)
class MethodCard(Card):
    """What a method's file says about it."""

    declared: MethodDeclaration


@dataclass(frozen=True, eq=False)
class TaskCard(Card):
    """What a task's file says about it."""

    declared: TaskDeclaration


METHOD, TASK = TypeAdapter(MethodDeclaration), TypeAdapter(TaskDeclaration)


def read_card(
    path: Path,
    kind: Kind,
    source: Source = "builtin",
    evaluated: Callable[[str], Attributes] = lambda _: {},
    module: str = "",
) -> Card:
    """Read what the file at `path` declares.

    Parameters
    ----------
    evaluated
        Returns the attributes of a task by its name: an evaluation takes over some of those of the
        task whose models it evaluates.
    module
        The name under which Python imports the file, where its source does not determine it.

    Raises
    ------
    InvalidUnit
        If the file is unreadable, not Python, or lacks what a unit must declare.
    """
    name = path.parent.name if path.name == "__init__.py" else path.stem
    tree = parse(path)
    if not re.fullmatch(r"[a-z_][a-z0-9_]*", name):
        raise InvalidUnit(
            f"The {kind} file {path} must be named in small letters, digits and underscores."
        )
    unit = _unit_class(tree, name, path)
    module = module or f"mixbench.{f'{kind}s' if source == 'builtin' else 'plugins'}.{name}"
    classes = ancestry(ClassSource(unit, tree, path, module))
    own, *inherited = (_attributes(one) for one in classes)
    attributes = {n: v for found in (*reversed(inherited), own) for n, v in found.items()}
    if isinstance(task := attributes.get("evaluates"), str):
        theirs = evaluated(task)
        attributes = {n: theirs[n] for n in OF_THE_BASE_TASK if n in theirs} | attributes
    missing = sorted({*REQUIRED[kind]} - attributes.keys()) or sorted({"version"} - own.keys())
    if missing and not (missing != ["version"] and "evaluates" in attributes):
        raise InvalidUnit(
            f"{path}, line {unit.lineno}: {unit.name} must declare {', '.join(missing)} itself."
        )
    docstring = ast.get_docstring(tree) or ""
    facts: dict[str, Any] = {
        "name": name,
        "path": path.resolve(),
        "source": source,
        "class_name": unit.name,
        "summary": docstring.partition("\n\n")[0].replace("\n", " "),
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
    """Tell whether a file's docstring has a field Data, as a task's has and a method's has not."""
    try:
        tree = parse(path)
    except InvalidUnit:
        return False  # reading it as a unit will say what is wrong
    return "Data" in _header(ast.get_docstring(tree) or "")


def _first_of(error: ValidationError) -> str:
    """Return what is wrong with a declaration, in one sentence."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    must = first["msg"].replace("Input should be", "must be")
    return f"{where} {must} (got {first['input']!r})."


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


def _attributes(source: ClassSource) -> dict[str, object]:
    """Return the values of a class's public plain attributes."""
    evaluator = Evaluator(source.path)
    for node in source.node.body:
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            continue
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            if isinstance(target, ast.Name) and not target.id.startswith("_"):
                evaluator.declared[target.id] = evaluator.value(node.value)
    return evaluator.declared


def _methods(classes: Sequence[ClassSource]) -> Iterator[str]:
    """Yield the names of the methods that classes define."""
    for source in classes:
        yield from (node.name for node in source.node.body if isinstance(node, ast.FunctionDef))


def _parameters(classes: Sequence[ClassSource]) -> Iterator[Parameter]:
    """Yield every argument of the ``__init__`` that Python would call."""
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
        yield Parameter(
            argument.arg,
            ast.unparse(argument.annotation),
            evaluator.type(argument.annotation),
            evaluator.value(default),
            described.get(argument.arg, ""),
        )


def described_parameters(docstring: str) -> dict[str, str]:
    """Return what the section Parameters of a numpy docstring says about each, in one line."""
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
