"""Evaluation of declarations from the syntax tree of a file, without running its code.

A declaration may contain constants; tuples, lists, sets and dicts; names from `mixbench.declare`
and calls of them; names that the class declares above; and unary minus. Other operators,
attributes, indices and comprehensions are rejected, so reading a file cannot run its code and is
always fast.
"""

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, NoReturn, TypeAlias

from mixbench import declare
from mixbench.errors import InvalidUnit

Value: TypeAlias = Any  # what literals, and names and calls of mixbench.declare, evaluate to

NAMES: Final[Mapping[str, Value]] = {name: getattr(declare, name) for name in declare.__all__}
TYPES: Final[Mapping[str, Value]] = {
    **NAMES,
    **{builtin.__name__: builtin for builtin in (bool, int, float, str)},
}


def parse(path: Path) -> ast.Module:
    """Return the syntax tree of a Python file.

    Raises
    ------
    InvalidUnit
        If the file cannot be read or is not valid Python.
    """
    try:
        return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidUnit(f"{path} cannot be read: {error}.") from error
    except SyntaxError as error:
        raise InvalidUnit(f"{path}, line {error.lineno}: {error.msg}.") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise InvalidUnit(f"{path} cannot be parsed as Python: {error}.") from error


class Evaluator:
    """Evaluator of the declarations of one class.

    Parameters
    ----------
    path
        Path of the class's file, for error messages.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.declared: dict[str, Value] = {}  # declarations evaluated so far

    def value(self, node: ast.expr) -> Value:
        """Return the value of an expression.

        Raises
        ------
        InvalidUnit
            If it contains anything that a declaration may not contain.
        """
        try:
            return self._value(node)
        except RecursionError:
            self._refuse(node, "it is nested too deeply")
        except (TypeError, ValueError, AttributeError, KeyError) as error:  # an unhashable key ...
            self._refuse(node, str(error))

    def type(self, node: ast.expr) -> Value:
        """Return the type that an annotation names.

        Raises
        ------
        InvalidUnit
            If it is not a type of `mixbench.declare`, ``bool``, ``int``, ``float``, ``str`` or a
            ``Literal``.
        """
        match node:
            case ast.Name(id=name) if name in TYPES:
                return TYPES[name]
            case ast.Subscript(value=ast.Name(id="Literal"), slice=inner):
                choices = self.value(inner)
                return Literal[choices]
        return self._refuse(node, f"{ast.unparse(node)} is not a type of mixbench.declare")

    def _value(self, node: ast.expr) -> Value:  # noqa: C901, PLR0911  # one case for each kind of node
        match node:
            case ast.Constant(value=value):
                return value
            case ast.Name(id=name):
                return self._named(node, name)
            case ast.Tuple(elts=items):
                return tuple(self._items(items))
            case ast.List(elts=items):
                return self._items(items)
            case ast.Set(elts=items):
                return frozenset(self._items(items))
            case ast.Dict():
                return self._dict(node)
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
                return -number
            case ast.Call(func=ast.Name(id=name)) if name in NAMES:
                return self._call(node, NAMES[name])
        return self._refuse(node, f"{ast.unparse(node)[:60]} is not allowed")

    def _named(self, node: ast.expr, name: str) -> Value:
        known = {**NAMES, **self.declared}
        return known[name] if name in known else self._refuse(node, f"{name} is not defined")

    def _items(self, nodes: list[ast.expr]) -> list[Value]:
        items: list[Value] = []
        for node in nodes:
            if isinstance(node, ast.Starred):
                items.extend(self._value(node.value))
            else:
                items.append(self._value(node))
        return items

    def _dict(self, node: ast.Dict) -> dict[Value, Value]:
        content: dict[Value, Value] = {}
        for key, item in zip(node.keys, node.values, strict=True):
            content |= self._value(item) if key is None else {self._value(key): self._value(item)}
        return content

    def _call(self, node: ast.Call, function: Value) -> Value:
        named: dict[str, Value] = {}
        for keyword in node.keywords:
            if keyword.arg is None:
                self._refuse(node, "a call must not use **")
            named[keyword.arg] = self._value(keyword.value)
        try:
            return function(*self._items(node.args), **named)
        except (TypeError, ValueError, AttributeError, KeyError) as error:
            return self._refuse(node, str(error))

    def _refuse(self, node: ast.expr, why: str) -> NoReturn:
        raise InvalidUnit(
            f"{self._path}, line {node.lineno}: a declaration must be made of literals and names "
            f"of mixbench.declare, so that it can be read without running the file ({why})."
        )
