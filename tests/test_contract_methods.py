"""What every method owes. A new file in methods/ is tested by being there."""

import pytest

from mixbench.registry.units import find, paths
from mixbench.testing import METHOD_CHECKS, mixing, run_checks, subject_of, training
from tests.support import each

TYPICAL = ("mixup", "cutmix", "manifold_mixup", "guided_patchmix")


@pytest.mark.parametrize("name", each(paths("method"), *TYPICAL))
def test_method_keeps_the_contract(name: str) -> None:
    """All checks in one test, since a method that must be prepared is prepared once."""
    card = find("method", name)
    results = [*run_checks(subject_of(card), METHOD_CHECKS)]

    assert [result.check for result in results] == [check.__name__ for check in METHOD_CHECKS]
    assert [result for result in results if result.status == "FAILED"] == []
    needed = {result.check for result in results if result.status == "exempt"}
    assert needed == card.declared.exempt.keys()  # none without need


# Three batches come out of one: these checks are about batches that keep their size.
BATCH_GROWS = (
    mixing.identical_images_are_unchanged,
    mixing.weights_match_pixels,
    mixing.shape_and_dtype_are_kept,
    mixing.sources_are_in_batch,
    training.loss_fits_the_sources,
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
    "cutmix_patch": [{"prob": 0.5, "grid": 2}],
    "cutout": [{"side_frac": 1.0}, {"side_frac": 0.1}],
    "fmix": [{"alpha": 0.2}, {"decay": 1.0}],
    "gridmask": [{"prob": 1.0, "rotate": 0.0}, {"keep": 0.0}, {"largest": 0.43}],
    "label_smoothing": [{"smoothing": 1.0}, {"smoothing": 0.0}],
    "adl": [{"drop_prob": 0.5, "threshold": 0.5}],
    "hide_and_seek": [{"hide_prob": 0.1}, {"hide_prob": 1.0}, {"side_frac": 0.536}],
    "patchmix_local_loss": [{"cells": "bernoulli"}, {"grid": 2, "local_weight": 0.2}],
    "mixup": [{"alpha": 0.1}, {"alpha": 1e-3}],
    "one_of": [{"switch_prob": 0.0}, {"switch_prob": 1.0, "cutmix_alpha": 0.3}],
    "random_erasing": [{"fill": "noise"}, {"prob": 1.0, "smallest": 0.5, "largest": 1.0}],
    "patchup": [{"mode": "hard", "gamma": 0.5, "prob": 0.7}, {"block": 3}],
    "transmix": [{"share": 1.0}, {"prob": 0.5, "alpha": 0.2}],
    "puzzlemix": [{"transport": False}, {"alpha": 0.2}, {"label_smoothness": 0.0, "prior": 2.0}],
    "resizemix": [{"smallest": 0.0}, {"largest": 1.0}],
    "saliencymix": [{"prob": 1.0}, {"prob": 1.0, "per_image": False}],
    "smoothmix": [{"narrowest": 0.05}, {"widest": 3.0}],
}


@pytest.mark.full
@pytest.mark.parametrize(
    ("name", "parameters"), [(name, p) for name, many in OPTIONS.items() for p in many], ids=str
)
def test_every_option_keeps_the_contract(name: str, parameters: dict[str, object]) -> None:
    subject = subject_of(find("method", name), parameters)

    for check in METHOD_CHECKS:
        exempt = check.__name__ in find("method", name).declared.exempt
        if not exempt and (parameters.get("final") != "sum" or check not in BATCH_GROWS):
            check(subject)
