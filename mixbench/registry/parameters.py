"""Parsing and validation of parameters given by ``--set NAME.PARAM=VALUE``."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from mixbench.declare import Recipe
from mixbench.declare.attacks import eps_text
from mixbench.declare.facts import Parameters, ParameterValue
from mixbench.errors import BadParameter, UnknownName, UsageError
from mixbench.registry.cards import Card, is_parameter_value
from mixbench.registry.plain_types import TypeForm

RECIPE_TYPES = get_type_hints(Recipe, include_extras=True)
FRACTION = re.compile(r"(\d+\.?\d*)/(\d+\.?\d*)")


class Setting(NamedTuple):
    """A parsed ``--set`` option.

    Attributes
    ----------
    unit
        Name of the method or task.
    parameter
        Name of the parameter.
    text
        Text of the value, not yet converted.
    """

    unit: str
    parameter: str
    text: str


def read_settings(texts: Sequence[str]) -> list[Setting]:
    """Split each ``NAME.PARAM=VALUE`` into its parts.

    Raises
    ------
    UsageError
        If a text does not have this form.
    """
    settings = []
    for text in texts:
        left, equals, value = text.partition("=")
        unit, dot, parameter = left.strip().rpartition(".")
        if not (equals and dot and unit and parameter):
            raise UsageError(
                f"--set must be NAME.PARAM=VALUE, for instance mixup.alpha=0.4 (got {text!r})."
            )
        settings.append(Setting(unit, parameter, value.strip()))
    return settings


def setting_text(value: object) -> str:
    """Return a value as ``--set`` takes it: several numbers joined by commas, as in 0.1,8/255."""
    if isinstance(value, tuple | list):
        return ",".join(eps_text(one) if isinstance(one, float) else str(one) for one in value)
    return str(value)


def given_to(card: Card, settings: Sequence[Setting]) -> dict[str, str]:
    """Return the settings of one unit, as a mapping from parameter to text."""
    return {setting.parameter: setting.text for setting in settings if setting.unit == card.name}


def parameters_of(
    card: Card, base: Parameters, given: Mapping[str, str]
) -> dict[str, ParameterValue]:
    """Return the values of a unit's parameters: `base`, overridden by the validated `given`.

    Raises
    ------
    UnknownName
        If the unit does not have a given parameter.
    BadParameter
        If a value does not have the parameter's type or is out of range.
    """
    types = {parameter.name: parameter.type for parameter in card.parameters}
    return {**base, **_checked(card.name, given, types)}


def task_settings(
    card: Card, base: Parameters, recipe: Recipe, given: Mapping[str, str]
) -> tuple[dict[str, ParameterValue], Recipe]:
    """Return a task's parameters and its recipe, both overridden by the given values.

    Raises
    ------
    UnknownName
        If neither the task nor the recipe has a given parameter.
    BadParameter
        If a value does not have the parameter's type or is out of range.
    """
    own = {parameter.name: parameter.type for parameter in card.parameters}
    checked = _checked(card.name, given, RECIPE_TYPES | own)
    changed = {name: value for name, value in checked.items() if name not in own}
    parameters = {name: value for name, value in checked.items() if name in own}
    return {**base, **parameters}, dataclasses.replace(recipe, **changed)


def recipe_value(unit: str, name: str, text: str) -> ParameterValue:
    """Convert a text to the value of a field of a task's recipe.

    Raises
    ------
    UnknownName
        If a recipe does not have the field.
    BadParameter
        If the value does not have the field's type or is out of range.
    """
    value: ParameterValue = _checked(unit, {name: text}, RECIPE_TYPES)[name]
    return value


def _parsed(kind: Any, text: str) -> ParameterValue:
    """Convert a text to a value of a type; the items of a tuple are separated by commas."""
    adapter: TypeAdapter[ParameterValue] = TypeAdapter(kind)
    plain = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    if get_origin(plain) is tuple:
        parts = text.split(",") if text else []
        return adapter.validate_python([_decimal(part.strip()) for part in parts])
    if get_origin(plain) is Literal:
        return adapter.validate_python({str(one): one for one in get_args(plain)}.get(text, text))
    return adapter.validate_strings(_decimal(text) if plain is float else text)


def _decimal(text: str) -> str:
    """Convert a fraction such as 8/255 to a decimal number; return any other text unchanged."""
    found = FRACTION.fullmatch(text)
    return repr(float(found[1]) / float(found[2])) if found and float(found[2]) else text


def _must(error: ValidationError) -> str:
    """Return what a value, or each item of a tuple, must be, for an error message."""
    details = error.errors()
    wrong = [d["msg"] for d in details if d["type"] != "too_short"] or ["must have a value"]
    return "; ".join(wrong).replace("Input should be", "must be")


def _checked(unit: str, given: Mapping[str, str], types: Mapping[str, TypeForm]) -> dict[str, Any]:
    values = {}
    for name, text in given.items():
        if name not in types:
            raise UnknownName(f"parameter of {unit}", name, types)
        try:
            values[name] = _parsed(types[name], text)
        except ValidationError as error:
            must = _must(error)
            raise BadParameter(f"{unit}.{name} {must} (got {text!r}).") from error
        if not is_parameter_value(values[name]):
            raise BadParameter(f"{unit}.{name} must be finite (got {text!r}).")
    return values
