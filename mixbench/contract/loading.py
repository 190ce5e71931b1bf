"""Import of method and task files; no other module imports them."""

import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import TypeVar, get_type_hints

from mixbench.contract.evaluation import Evaluation
from mixbench.contract.method import Method
from mixbench.contract.task import Task
from mixbench.declare.facts import OF_THE_BASE_TASK, Parameters
from mixbench.errors import InvalidUnit
from mixbench.registry.ancestry import CONTRACT
from mixbench.registry.cards import Card
from mixbench.registry.plain_types import TypeForm
from mixbench.registry.units import find

Base = TypeVar("Base")


def load_method(card: Card) -> type[Method]:
    """Import the method's file and return its class."""
    return _subclass(card, Method)


def load_task(card: Card) -> type[Task]:
    """Import the task's file and return its class."""
    return _subclass(card, Task)


def make_task(card: Card, parameters: Parameters, base: Parameters | None = None) -> Task:
    """Return a task with the given parameters; an evaluation also gets its base task.

    Parameters
    ----------
    card
        Card of the task.
    parameters
        Parameters of the task.
    base
        Parameters of the base task if `card` is an evaluation; None means their defaults.
    """
    kind = load_task(card)
    if not issubclass(kind, Evaluation):
        return kind(**parameters)
    other = find("task", kind.evaluates)
    return kind.of(load_task(other)(**(other.defaults if base is None else base)), parameters)


def _subclass(card: Card, base: type[Base]) -> type[Base]:
    """Return the class that a unit's file defines; raise if it does not fit `base` or its card."""
    unit = getattr(_module(card), card.class_name)
    if not (isinstance(unit, type) and issubclass(unit, base)):
        raise InvalidUnit(f"{card.path}: {card.class_name} must be a subclass of {base.__name__}.")
    if difference := next(differences(card, unit), ""):
        raise InvalidUnit(f"{card.path}: {difference}. Declare it as a literal in the class.")
    return unit


def differences(card: Card, unit: type) -> Iterator[str]:
    """Yield each difference between a loaded class and the declarations read from its file."""
    own = {name for one in unit.__mro__ if not _is_contract(one) for name in vars(one)}
    taken_over = OF_THE_BASE_TASK if "evaluates" in card.attributes else ()
    for name, value in card.attributes.items():
        found = getattr(unit, name, None) if name in own or name not in taken_over else value
        if found != value:
            yield f"{name} is {value!r} in the file, and {found!r} in the class {unit.__name__}"
    declared = {parameter.name: parameter.default for parameter in card.parameters}
    taken = {
        name: parameter.default
        for name, parameter in inspect.signature(unit).parameters.items()
        if parameter.kind not in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}
    }
    if declared != taken:
        yield f"the file has the parameters {_listed(declared)}; the class takes {_listed(taken)}"
        return
    hints: Mapping[str, TypeForm] = {
        parameter.name: parameter.type for parameter in card.parameters
    }
    with suppress(NameError):  # annotations that only a type checker can resolve
        hints = get_type_hints(unit.__init__, include_extras=True)  # type: ignore[misc]
    for parameter in card.parameters:
        if hints.get(parameter.name) != parameter.type:
            yield f"the type of the parameter {parameter.name} differs between file and class"


def _is_contract(one: type) -> bool:
    return f"{one.__module__}.".startswith(f"{CONTRACT}.")


def _listed(parameters: Parameters) -> str:
    return ", ".join(f"{name}={default!r}" for name, default in parameters.items()) or "none"


def _module(card: Card) -> ModuleType:
    """Import a unit's file; a file outside any package is imported as `card.module`."""
    if card.source != "file":
        try:
            return importlib.import_module(card.module)
        except Exception as error:  # a package may raise any exception
            raise InvalidUnit(_why_not(card, error)) from error
    spec = importlib.util.spec_from_file_location(card.module, card.path)
    if spec is None or spec.loader is None:
        raise InvalidUnit(f"{card.path} cannot be imported: it must be a Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[card.module] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # a plugin may raise any exception
        del sys.modules[card.module]
        raise InvalidUnit(_why_not(card, error)) from error
    return module


def _why_not(card: Card, error: Exception) -> str:
    """Return a message that names the line at which an import failed, and what to do."""
    what = located(card, error)
    if isinstance(error, ModuleNotFoundError) and error.name == card.module.rpartition(".")[0]:
        return f"{what}. Import built-in units absolutely: from mixbench.methods.NAME import ..."
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"{what}. Install it where mixbench runs: pip install {error.name.partition('.')[0]}"
    return f"{what}. Fix the file: importing it must not raise."


def located(card: Card, error: Exception) -> str:
    """Return the error that a unit's file has raised, with the file and its line."""
    line = line_of(card, error)
    where = f"{card.path}, line {line}" if line else str(card.path)
    return f"{where}: {type(error).__name__}: {error}"


def line_of(card: Card, error: Exception) -> int | None:
    """Return the last line of the unit's file in the error's traceback; None if there is none."""
    frames = traceback.extract_tb(error.__traceback__)
    inside = [frame.lineno for frame in frames if Path(frame.filename).resolve() == card.path]
    return inside[-1] if inside else None
