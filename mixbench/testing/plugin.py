"""The checks as pytest parameters, for methods and tasks in separate repositories."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mixbench.declare.facts import Parameters
from mixbench.registry.cards import MethodCard
from mixbench.registry.units import find
from mixbench.testing.checks import Check
from mixbench.testing.methods import METHOD_CHECKS
from mixbench.testing.tasks import TASK_CHECKS, TaskSubject
from mixbench.testing.toy import subject_of

if TYPE_CHECKING:
    from _pytest.mark import ParameterSet


def method_checks(method: str | Path, parameters: Parameters | None = None) -> "list[ParameterSet]":
    """Return the checks of a method as pytest parameters; those it is exempt from may fail.

    ::

        @pytest.mark.parametrize("check", method_checks("my_method.py"))
        def test_contract(check):
            check()

    Parameters
    ----------
    method
        Name of the method, or path of its file.
    parameters
        Values of the method's parameters, by name, that differ from the defaults.
    """
    subject = subject_of(find("method", str(method)), parameters)
    assert isinstance(subject.card, MethodCard)  # it comes from a file
    return _as_parameters(subject, METHOD_CHECKS, subject.card.declared.exempt)


def task_checks(task: str | Path) -> "list[ParameterSet]":
    """Return the checks of a task, given its name or file, as pytest parameters."""
    return _as_parameters(TaskSubject(find("task", str(task))), TASK_CHECKS, {})


def _as_parameters(
    subject: object, checks: Sequence[Check], exempt: Mapping[str, str]
) -> "list[ParameterSet]":
    import pytest

    found = []
    for check in checks:
        run: Callable[[], str] = partial(check, subject)
        name = check.__name__
        why = [exempt[name]] if name in exempt else []
        marks = [pytest.mark.xfail(reason=reason, raises=AssertionError) for reason in why]
        found.append(pytest.param(run, id=name, marks=marks))
    return found
