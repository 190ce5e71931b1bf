"""Models that the user asks for by the name of a library, the id of the Hub or a file."""

import re
from pathlib import Path
from typing import NamedTuple

from mixbench.errors import DataError, UnknownName, UsageError
from mixbench.registry.fingerprint import digest
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
    if asked.endswith(".py"):
        return _of_file(Path(asked))
    if asked.startswith(HUB):
        architecture, weights = of_hub(asked)
        return ModelName(architecture, weights=weights)
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
        own = digest(path.resolve())
    except (SyntaxError, UnicodeDecodeError, ValueError) as error:
        raise UsageError(f"--model: {path} must be a Python file ({error}).") from error
    stem = re.sub(r"[^A-Za-z0-9_]", "_", path.stem).lstrip("_") or "net"
    return ModelName(f"{stem}_{own[:DIGITS]}", str(path.resolve()))
