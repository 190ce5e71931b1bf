"""Running of the checks of a method or task, and their results.

A check is a function that takes a method or task under test. It returns what it measured, or raises
an AssertionError that states the failure; the second paragraph of its docstring is the remedy. A
method may be exempt from some checks if it declares a reason (`Method.exempt`).
"""

import ast
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, Protocol

from mixbench.contract.loading import line_of
from mixbench.registry.cards import Card, MethodCard

Check = Callable[[Any], str]
# The Python method whose line is reported for a failed check if the file raised no error itself.
ABOUT = {
    "card_matches_class": "__init__",
    "evaluation_is_unchanged": "predict",
    "loss_decreases": "loss",
    "loss_fits_the_sources": "loss",
    "generated_data_has_official_layout": "synthesize",
    "generation_is_deterministic": "synthesize",
    "every_class_is_named_and_present": "class_names",
    "models_predict_and_are_scored": "score",
    "feature_size_is_as_declared": "build",
}


class Result(NamedTuple):
    """The result of a check.

    Attributes
    ----------
    check
        Name of the check.
    status
        Outcome: "ok", "FAILED", or "exempt" if the check failed and the method is exempt from it.
    said
        What was measured, or the failure.
    line
        Line of the unit's file to which the failure refers; None if there is none.
    remedy
        How to fix the failure; empty unless the check failed.
    """

    check: str
    status: Literal["ok", "FAILED", "exempt"]
    said: str
    line: int | None
    remedy: str


class HasCard(Protocol):
    """A method or task under test: a `Subject` or a `TaskSubject`."""

    @property
    def card(self) -> Card | None:
        """Card of the file; None for a class without a file."""


def run_checks(subject: HasCard, checks: Sequence[Check]) -> Iterator[Result]:
    """Run checks on a method or task and yield each result as soon as it is available."""
    card = subject.card
    exempt = card.declared.exempt if isinstance(card, MethodCard) else {}
    for check in checks:
        name = check.__name__
        try:
            yield Result(name, "ok", check(subject), None, "")
        except Exception as error:  # noqa: BLE001  # any exception of a plugin is a result
            said = str(error).partition("\n")[0] or type(error).__name__
            if not isinstance(error, AssertionError):
                said = f"{type(error).__name__}: {said}"
            if name in exempt and isinstance(error, AssertionError):
                yield Result(name, "exempt", f"{exempt[name]} ({said})", None, "")
            else:
                yield Result(name, "FAILED", said, _line(card, name, error), remedy_of(check))


def remedy_of(check: Check) -> str:
    """Return the remedy for a failed check, from its docstring."""
    return (inspect.getdoc(check) or "").partition("Else: ")[2]


def _line(card: Card | None, check: str, error: Exception) -> int | None:
    """Return the line of the unit's file to which an error refers."""
    if card is None:
        return None
    usual = "mix" if card.kind == "method" else "load"
    return line_of(card, error) or _defined_at(card, ABOUT.get(check, usual))


def _defined_at(card: Card, name: str) -> int:
    """Return the line of a Python method in the unit's class, or of the class if it has none."""
    tree = ast.parse(card.path.read_text(encoding="utf-8"))
    unit = next(
        node
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name == card.class_name
    )
    own = (node for node in unit.body if isinstance(node, ast.FunctionDef) and node.name == name)
    return next((node.lineno for node in own), unit.lineno)
