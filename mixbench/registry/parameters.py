"""From ``--set NAME.PARAM=VALUE`` to checked values. Knows no unit by name."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from mixbench.declare import Recipe
from mixbench.declare.facts import ParameterValue
from mixbench.errors import BadParameter, UnknownName, UsageError
from mixbench.registry.cards import Card

RECIPE_TYPES = get_type_hints(Recipe, include_extras=True)
FRACTION = re.compile(r"(\d+\.?\d*)/(\d+\.?\d*)")


class Setting(NamedTuple):
    """One ``--set``: the unit's name, the parameter's name and the text of its value."""

    unit: str
    parameter: str
    text: str


def read_settings(texts: Sequence[str]) -> list[Setting]:
    """Split every ``NAME.PARAM=VALUE``.

    Raises
    ------
    UsageError
        If a text has another form.
    """
    settings = []
    for text in texts:
        left, equals, value = text.partition("=")
        unit, dot, parameter = left.strip().rpartition(".")
        if not (equals and dot and unit and parameter):
            raise UsageError(
                f"--set must be NAME.PARAM=VALUE, as in mixup.alpha=0.4 (got {text!r})."
            )
        settings.append(Setting(unit, parameter, value.strip()))
    return settings


def given_to(card: Card, settings: Sequence[Setting]) -> dict[str, str]:
    """Return the texts that the settings give to one unit, by parameter."""
    return {setting.parameter: setting.text for setting in settings if setting.unit == card.name}


def parameters_of(
    card: Card, base: Mapping[str, ParameterValue], given: Mapping[str, str]
) -> dict[str, ParameterValue]:
    """Return the value of every parameter of the unit: as in `base`, but the given ones, checked.

    Raises
    ------
    UnknownName
        If the unit has no such parameter.
    BadParameter
        If a value does not fit its type or range.
    """
    types = {parameter.name: parameter.type for parameter in card.parameters}
    return {**base, **_checked(card.name, given, types)}


def task_settings(
    card: Card, base: Mapping[str, ParameterValue], recipe: Recipe, given: Mapping[str, str]
) -> tuple[dict[str, ParameterValue], Recipe]:
    """Return a task's parameters and its recipe, both with the given values.

    Raises
    ------
    UnknownName
        If neither has such a parameter.
    BadParameter
        If a value does not fit its type or range.
    """
    own = {parameter.name: parameter.type for parameter in card.parameters}
    checked = _checked(card.name, given, RECIPE_TYPES | own)
    changed = {name: value for name, value in checked.items() if name not in own}
    parameters = {name: value for name, value in checked.items() if name in own}
    return {**base, **parameters}, dataclasses.replace(recipe, **changed)


def recipe_value(unit: str, name: str, text: str) -> Any:
    """Return a text as a value of a task's recipe.

    Raises
    ------
    UnknownName
        If a recipe has no such value.
    BadParameter
        If it does not fit its type or range.
    """
    return _checked(unit, {name: text}, RECIPE_TYPES)[name]


def _parsed(kind: Any, text: str) -> Any:
    """Return a text as a value of a type; of a tuple, the parts between commas."""
    adapter = TypeAdapter(kind)
    plain = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    if get_origin(plain) is tuple:
        parts = text.split(",") if text else []
        return adapter.validate_python([_decimal(part.strip()) for part in parts])
    return adapter.validate_strings(_decimal(text) if plain is float else text)


def _decimal(text: str) -> str:
    """Return a fraction like 8/255 as a decimal number, and any other text as it is."""
    found = FRACTION.fullmatch(text)
    return repr(float(found[1]) / float(found[2])) if found and float(found[2]) else text


def _must(error: ValidationError) -> str:
    """Say what a value must be: of a tuple, what its parts must be, or that there must be one."""
    details = error.errors()
    wrong = [d["msg"] for d in details if d["type"] != "too_short"] or ["must have a value"]
    return "; ".join(wrong).replace("Input should be", "must be")


def _checked(unit: str, given: Mapping[str, str], types: Mapping[str, Any]) -> dict[str, Any]:
    values = {}
    for name, text in given.items():
        if name not in types:
            raise UnknownName(f"parameter of {unit}", name, types)
        try:
            values[name] = _parsed(types[name], text)
        except ValidationError as error:
            must = _must(error)
            raise BadParameter(f"{unit}.{name} {must} (got {text!r}).") from error
    return values
