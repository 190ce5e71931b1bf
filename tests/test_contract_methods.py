"""What every method owes. A new file in methods/ is tested by being there."""

from collections.abc import Callable

import pytest

from mixbench.registry.units import find, load_method, paths
from mixbench.testing import METHOD_CHECKS, Subject


@pytest.fixture(params=list(paths("method")))
def subject(request: pytest.FixtureRequest) -> Subject:
    card = find("method", request.param)
    return Subject(load_method(card), card)


@pytest.mark.parametrize("check", METHOD_CHECKS, ids=lambda check: check.__name__)
def test_method_keeps_the_contract(check: Callable[[Subject], None], subject: Subject) -> None:
    check(subject)


OPTIONS: dict[str, list[dict[str, object]]] = {
    "random_patchmix": [
        {"grid": 2},
        {"grid": 1, "head": "per_cell"},
        {"cells": "beta", "alpha": 0.3},
        {"head": "per_cell"},
        {"head": "tied"},
        {"image_loss": False},
        {"patch_loss": False},
    ],
    "cutmix": [{"prob": 0.5}, {"alpha": 0.2}],
    "cutmix_16": [{"deviation_frac": 1.0}, {"side_frac": 1.0}],
    "mixup": [{"alpha": 0.1}, {"alpha": 1e-3}],
}


@pytest.mark.parametrize(
    ("name", "parameters"), [(name, p) for name, many in OPTIONS.items() for p in many], ids=str
)
def test_every_option_keeps_the_contract(name: str, parameters: dict[str, object]) -> None:
    unit = load_method(find("method", name))

    for check in METHOD_CHECKS:
        check(Subject(lambda: unit(**parameters)))
