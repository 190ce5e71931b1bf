"""A digest of the code that decides a stage's result.

The digest covers a module and all first-party modules that it imports, each with comments and
docstrings stripped, so that a reworded comment reruns nothing and a changed helper reruns all
that rests on it.
"""

import ast
import hashlib
import importlib.util
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import mixbench
from mixbench.registry.cards import Card
from mixbench.registry.units import FOLDERS

FIRST_PARTY = "mixbench"
# They may stop a stage, but cannot change what it returns.
NOT_DECIDING = frozenset({"mixbench", "mixbench.archives", "mixbench.errors"})


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
    """Return the digest of every first-party module behind the given modules and units.

    Parameters
    ----------
    modules
        Dotted names of core modules.
    alone
        Core modules that count without what they import.
    units
        Cards of the methods and tasks that take part, built in or files.

    Returns
    -------
    digests
        By module name, sorted.
    """
    found: dict[str, Path] = {}
    for module in modules:
        _collect(module, _origin(module), found)
    for card in units:
        _collect(card.module, card.path, found)
    found |= {module: path for module in alone if (path := _origin(module))}
    return {name: digest(path) for name, path in sorted(found.items())}


def combine(digests: Mapping[str, str]) -> str:
    """Return one digest for a whole fingerprint."""
    text = "".join(f"{name}={value};" for name, value in sorted(digests.items()))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _collect(module: str, path: Path | None, found: dict[str, Path]) -> None:
    """Add the module and, recursively, what it imports."""
    if path is None or module in found or module in NOT_DECIDING:
        return
    found[module] = path
    for name in _imports(module, path):
        _collect(name, _origin(name), found)


@cache
def _imports(module: str, path: Path) -> frozenset[str]:
    """Return every first-party name that a file imports, submodule or not."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(
        name
        for node in ast.walk(tree)
        for name in _imported_names(node, package)
        if name.partition(".")[0] == FIRST_PARTY
    )


def _imported_names(node: ast.AST, package: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            base = importlib.util.resolve_name("." * node.level + base, package)
        yield base
        yield from (f"{base}.{alias.name}" for alias in node.names)


@cache
def _origin(module: str) -> Path | None:
    """Return a first-party module's file, or None for what is no module.

    Python's own finder would import the packages on the way, and torch with them.
    """
    folder, *rest = module.split(".")[1:] or [""]
    roots = {f"{kind}s": path for kind, path in FOLDERS.items()}
    place = roots.get(folder, Path(mixbench.__file__).parent / folder).joinpath(*rest)
    candidates = (place.with_suffix(".py"), place / "__init__.py")
    return next((path for path in candidates if path.is_file()), None)
