"""Readable descriptions of parameter types, for `mixbench info` and the documentation."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, TypeAlias, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt

TypeForm: TypeAlias = Any  # a type, or a type with constraints

WORDS = {bool: "true or false", int: "integer", float: "number", str: "string"}
PLURALS = {int: "integers", float: "numbers", str: "strings"}
MARKS = {  # annotations of strings with a special meaning
    "file": "path of a file",
    "weights": "one of random, published, timm, timm:TAG, pretrained, synthetic, or a file",
}


def plain_type(kind: Any) -> str:
    """Return a readable description of a type: "integer >= 1", "one of bernoulli, beta"."""
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    base, *constraints = get_args(kind) if get_origin(kind) is Annotated else (kind,)
    for mark in constraints:
        if mark in MARKS:
            return MARKS[mark]
    if get_origin(base) is tuple:
        of = get_args(base)[0]
        inner, *bounds = get_args(of) if get_origin(of) is Annotated else (of,)
        return f"{PLURALS[inner]}{_range(bounds)}, separated by commas"
    return f"{WORDS.get(base, str(base))}{_range(constraints)}"


def _range(constraints: Sequence[TypeForm]) -> str:
    """Return the bounds as comparisons, for instance " >= 0 and <= 1"; omit infinite bounds."""
    signs = [*_signs(constraints)]
    return f" {' and '.join(signs)}" if signs else ""


def _signs(constraints: Sequence[TypeForm]) -> Iterator[str]:
    for bound in constraints:
        match bound:
            case Ge(ge=number):
                yield f">= {number}"
            case Gt(gt=number):
                yield f"> {number}"
            case Le(le=number):
                yield f"<= {number}"
            case Lt(lt=number) if number != float("inf"):
                yield f"< {number}"
