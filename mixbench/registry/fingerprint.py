"""Digests of the code that determines the result of a stage.

The digests cover a module and all first-party modules that it imports, directly or indirectly.
Comments and docstrings are removed first: a change of a comment reruns nothing, and a change of a
helper function reruns every stage that depends on it.
"""

import ast
import hashlib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from mixbench.registry.cards import Card
from mixbench.registry.modules import absolute_name, module_file

FIRST_PARTY = "mixbench"
# These modules can make a stage fail but cannot change its result.
NOT_DECIDING = frozenset({"mixbench", "mixbench.datasets.archives", "mixbench.errors"})


@cache
def digest(path: Path) -> str:
    """Return the digest of one file's code, without comments and docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and _is_docstring(body[0]):
            node.body = body[1:] or [ast.Pass()]  # type: ignore[attr-defined]
    return hashlib.blake2b(ast.unparse(tree).encode(), digest_size=16).hexdigest()


def _is_docstring(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


@cache
def fingerprint(
    modules: tuple[str, ...], units: tuple[Card, ...] = (), alone: tuple[str, ...] = ()
) -> dict[str, str]:
    """Return the digest of every first-party module that the given modules and units depend on.

    Parameters
    ----------
    modules
        Dotted names of core modules.
    units
        Cards of the methods and tasks that the stage uses.
    alone
        Dotted names of core modules whose imports are not followed.

    Returns
    -------
    digests
        Digests by module name, sorted by name.
    """
    found: dict[str, Path] = {}
    for module in modules:
        _collect(module, module_file(module), found)
    for card in units:
        _collect(card.module, card.path, found)
    found |= {module: path for module in alone if (path := module_file(module))}
    return {name: digest(path) for name, path in sorted(found.items())}


def combine(digests: Mapping[str, str]) -> str:
    """Combine the digests of a fingerprint into one digest."""
    text = "".join(f"{name}={value};" for name, value in sorted(digests.items()))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _collect(module: str, path: Path | None, found: dict[str, Path]) -> None:
    """Add a module and, recursively, the first-party modules that it imports."""
    if path is None or module in found or module in NOT_DECIDING:
        return
    found[module] = path
    for name in _imports(module, path):
        _collect(name, module_file(name), found)


@cache
def _imports(module: str, path: Path) -> frozenset[str]:
    """Return every first-party name that a file imports, whether or not it is a module."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(
        name
        for node in ast.walk(tree)
        for name in _imported_names(node, module, path)
        if name.partition(".")[0] == FIRST_PARTY
    )


def _imported_names(node: ast.AST, module: str, path: Path) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = absolute_name(node.module or "", node.level, path, module)
        yield base
        yield from (f"{base}.{alias.name}" for alias in node.names)
