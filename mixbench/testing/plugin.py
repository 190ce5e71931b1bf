"""The checks as tests of pytest, for whoever keeps a method in a repository of their own."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixbench.registry.units import find
from mixbench.testing.checks import METHOD_CHECKS
from mixbench.testing.toy import subject_of

if TYPE_CHECKING:
    from _pytest.mark import ParameterSet


def method_checks(
    method: str | Path, parameters: Mapping[str, Any] | None = None
) -> "list[ParameterSet]":
    """Return every check of a method as parameters for pytest; those it is exempt from may fail.

    ::

        @pytest.mark.parametrize("check", method_checks("my_method.py"))
        def test_contract(check):
            check()

    Parameters
    ----------
    method
        A name, or a file.
    parameters
        Values other than the defaults.
    """
    import pytest

    subject = subject_of(find("method", str(method)), parameters)
    assert subject.card is not None  # it has a file
    exempt = subject.card.declared.get("exempt", {})
    found = []
    for check in METHOD_CHECKS:
        run: Callable[[], str] = partial(check, subject)
        name = check.__name__
        why = [exempt[name]] if name in exempt else []
        marks = [pytest.mark.xfail(reason=reason, raises=AssertionError) for reason in why]
        found.append(pytest.param(run, id=name, marks=marks))
    return found
