"""Models that the user asks for by the name of a library, the id of the Hub or a file."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mixbench.errors import DataError, UnknownName, UsageError
from mixbench.registry.fingerprint import combine, digest
from mixbench.registry.hub import of_hub
from mixbench.registry.model_names import HUB, TORCHVISION, timm_models, torchvision_models

DIGITS = 8  # of the digest of a file, in the name of its model


class ModelName(NamedTuple):
    """A model that the user asked for.

    Attributes
    ----------
    name
        Name in keys, records and tables; of a file, its stem and a digest of its code.
    file
        Absolute path of the file that builds the model; empty for the models of libraries.
    weights
        Initial weights that the user's name of the model includes, as `mixbench.declare.Weights`.
    """

    name: str
    file: str = ""
    weights: str = ""


def named(asked: str, declared: tuple[str, ...], task: str) -> ModelName:
    """Return the model that a name means, for a task that takes more models than it declares.

    Parameters
    ----------
    asked
        A name that the task declares, of timm, also with a tag as in ``resnet18.a1_in1k``, or of
        torchvision, also as ``torchvision.resnet18``; ``hf-hub:ORG/NAME``; or the path of a file
        with a function ``build(num_classes)``.
    declared
        Names of the task's own models.
    task
        Name of the task, for error messages.

    Raises
    ------
    UnknownName
        If nothing has this name.
    DataError
        If the file cannot be read, or the Hub does not answer.
    """
    if asked.startswith(HUB):
        architecture, weights = of_hub(asked)
        return ModelName(architecture, weights=weights)
    if asked.endswith(".py"):
        return _of_file(Path(asked))
    return _of_library(asked, declared, task)


def _of_library(asked: str, declared: tuple[str, ...], task: str) -> ModelName:
    if asked in declared or asked in timm_models():
        return ModelName(asked)
    name = asked.removeprefix(TORCHVISION)
    if name in torchvision_models():
        return ModelName(TORCHVISION + name)
    model, _, tag = asked.partition(".")
    if tag and model in timm_models():
        return ModelName(model, weights=f"timm:{tag}")
    of_torchvision = {TORCHVISION + name for name in torchvision_models()}
    known = {*declared, *timm_models(), *torchvision_models(), *of_torchvision}
    shown = [*declared, "every model of timm and torchvision", "hf-hub:ORG/NAME", "./FILE.py"]
    raise UnknownName(f"model of {task}", asked, known, shown)


def _of_file(path: Path) -> ModelName:
    if not path.is_file():
        raise DataError(f"--model: there is no file {path}.")
    try:
        own = code_digest(path.resolve())
    except (SyntaxError, UnicodeDecodeError, ValueError) as error:
        raise UsageError(f"--model: {path} must be a Python file ({error}).") from error
    stem = re.sub(r"[^A-Za-z0-9_]", "_", path.stem).lstrip("_") or "net"
    return ModelName(f"{stem}_{own}", str(path.resolve()))


def code_digest(path: Path) -> str:
    """Return the first digits of a digest of a file's code, and of what it imports from beside it.

    Installed packages are not included.
    """
    found: dict[Path, str] = {}
    _collect(path, path.parent, found)
    named = {file.relative_to(path.parent).as_posix(): value for file, value in found.items()}
    return combine(named)[:DIGITS]


def _collect(path: Path, beside: Path, found: dict[Path, str]) -> None:
    """Add the digests of a file and, recursively, of the modules beside it that it imports."""
    if path in found:
        return
    found[path] = digest(path)
    for place in {beside / name for name in _imported(path)}:
        for file in (place.with_suffix(".py"), *sorted(place.rglob("*.py"))):
            if file.is_file():
                _collect(file, beside, found)


def _imported(path: Path) -> Iterator[str]:
    """Yield the first parts of the names that a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]
