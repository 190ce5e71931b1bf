"""What every method owes. A new file in methods/ is tested by being there."""

from collections.abc import Callable

import pytest

from mixbench.registry.units import find, paths
from mixbench.testing import METHOD_CHECKS, Subject, mixing, subject_of


@pytest.fixture(params=list(paths("method")), scope="module")
def subject(request: pytest.FixtureRequest) -> Subject:
    return subject_of(find("method", request.param))


@pytest.mark.parametrize("check", METHOD_CHECKS, ids=lambda check: check.__name__)
def test_method_keeps_the_contract(check: Callable[[Subject], str], subject: Subject) -> None:
    check(subject)


# Three batches come out of one: these checks are about batches that keep their size.
BATCH_GROWS = (
    mixing.alike_images_stay,
    mixing.labels_say_what_the_pixels_hold,
    mixing.shape_and_dtype_stay,
    mixing.sources_are_in_the_batch,
)
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
    "guided_patchmix": [
        {"search": "direct", "grid": 2},
        {"search": "random", "same_class": True},
        {"search": "random", "patch_loss": True, "cells": "beta"},
        {"search": "random", "final": "sum"},
        {"fitness": "loss", "goal": "max", "num_pairs": 3},
    ],
    "mixup": [{"alpha": 0.1}, {"alpha": 1e-3}],
}


@pytest.mark.parametrize(
    ("name", "parameters"), [(name, p) for name, many in OPTIONS.items() for p in many], ids=str
)
def test_every_option_keeps_the_contract(name: str, parameters: dict[str, object]) -> None:
    subject = subject_of(find("method", name), parameters)

    for check in METHOD_CHECKS:
        if parameters.get("final") != "sum" or check not in BATCH_GROWS:
            check(subject)
