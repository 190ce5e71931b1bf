"""Checks that anyone can run on any method or task, and what came of them.

Each takes a subject and returns what was measured, or raises AssertionError with a sentence that
says so; the second paragraph of its docstring is what to do then. A method may be exempt from some
of them, and says why (`Method.exempt`).
"""

import ast
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, Protocol

from mixbench.contract.loading import line_of
from mixbench.registry.cards import Card, MethodCard

Check = Callable[[Any], str]
# Which method of the class a failed check is about, where nothing was raised in it.
ABOUT = {
    "card_tells_the_truth": "__init__",
    "evaluation_is_untouched": "predict",
    "generated_data_has_the_layout": "synthesize",
    "generating_twice_gives_the_same": "synthesize",
    "classes_are_named_and_all_there": "class_names",
    "models_predict_and_are_scored": "score",
    "features_have_the_declared_size": "build",
}


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


class HasCard(Protocol):
    """What is checked: a `Subject` or a `TaskSubject`."""

    @property
    def card(self) -> Card | None:
        """What the file says of itself; None for a class without a file."""


def run_checks(subject: HasCard, checks: Sequence[Check]) -> Iterator[Result]:
    """Run checks on a method or task; yield each result as soon as it is there."""
    card = subject.card
    exempt = card.declared.exempt if isinstance(card, MethodCard) else {}
    for check in checks:
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
    usual = "mix" if card.kind == "method" else "load"
    return line_of(card, error) or _defined_at(card, ABOUT.get(check, usual))


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
