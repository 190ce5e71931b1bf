"""What every mixing method owes, as checks that anyone can run on any method.

Each check takes a `Subject` and returns what was measured, or raises AssertionError with a sentence
that says so; the second paragraph of its docstring is what to do then. A method may be exempt from
some of them, and says why (`Method.exempt`).
"""

import ast
import inspect
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from mixbench.registry.cards import Card
from mixbench.registry.units import line_of
from mixbench.testing.mixing import (
    alike_images_stay,
    bfloat16_stays_and_weights_do_not_follow,
    draws_only_from_its_stream,
    input_is_left_alone,
    labels_say_what_the_pixels_hold,
    other_stream_other_result,
    same_stream_same_result,
    shape_and_dtype_stay,
    sources_are_in_the_batch,
    weights_are_shares,
)
from mixbench.testing.toy import Subject
from mixbench.testing.training import (
    all_parameters_learn,
    card_tells_the_truth,
    evaluation_is_untouched,
    loss_falls,
    state_survives,
)

Check = Callable[[Subject], str]
METHOD_CHECKS: tuple[Check, ...] = (
    card_tells_the_truth,
    labels_say_what_the_pixels_hold,
    weights_are_shares,
    sources_are_in_the_batch,
    shape_and_dtype_stay,
    bfloat16_stays_and_weights_do_not_follow,
    input_is_left_alone,
    same_stream_same_result,
    other_stream_other_result,
    draws_only_from_its_stream,
    alike_images_stay,
    loss_falls,
    all_parameters_learn,
    state_survives,
    evaluation_is_untouched,
)
# Which method of the class a failed check is about, where nothing was raised in it.
ABOUT = {"card_tells_the_truth": "__init__", "evaluation_is_untouched": "predict"}


class Result(NamedTuple):
    """What came of a check.

    Attributes
    ----------
    said
        What was measured, or went wrong.
    line
        Of the method's file, where one can be named.
    remedy
        What to do; empty unless the check failed.
    """

    check: str
    status: Literal["ok", "FAILED", "exempt"]
    said: str
    line: int | None
    remedy: str


def run_checks(subject: Subject) -> Iterator[Result]:
    """Run every check on a method; yield each result as soon as it is there."""
    card = subject.card
    exempt = card.declared.get("exempt", {}) if card else {}
    for check in METHOD_CHECKS:
        name = check.__name__
        try:
            yield Result(name, "ok", check(subject), None, "")
        except Exception as error:  # noqa: BLE001  # whatever a plugin raises is a result
            said = str(error).partition("\n")[0] or type(error).__name__
            if not isinstance(error, AssertionError):
                said = f"{type(error).__name__}: {said}"
            if name in exempt and isinstance(error, AssertionError):
                yield Result(name, "exempt", f"{exempt[name]} ({said})", None, "")
            else:
                yield Result(name, "FAILED", said, _line(card, name, error), remedy_of(check))


def remedy_of(check: Check) -> str:
    """Return what to do when a check fails."""
    return (inspect.getdoc(check) or "").partition("Else: ")[2]


def _line(card: Card | None, check: str, error: Exception) -> int | None:
    """Return the line of a method's file that an error is about."""
    if card is None:
        return None
    return line_of(card, error) or _defined_at(card, ABOUT.get(check, "mix"))


def _defined_at(card: Card, name: str) -> int:
    """Return the line at which a class defines one of its methods, or begins."""
    tree = ast.parse(card.path.read_text(encoding="utf-8"))
    unit = next(
        node
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name == card.class_name
    )
    own = (node for node in unit.body if isinstance(node, ast.FunctionDef) and node.name == name)
    return next((node.lineno for node in own), unit.lineno)
