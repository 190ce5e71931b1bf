"""What every task owes. A new file in tasks/ is tested by being there, on its generated data."""

from collections.abc import Callable
from functools import cache

import pytest

from mixbench.registry.units import find, paths
from mixbench.testing import TASK_CHECKS, TaskSubject
from tests.support import each

AS_THEY_ARE = {"coco_captions", "voc_detection"}  # tasks whose images are not augmented


@cache
def subject_of(name: str) -> TaskSubject:
    """A task's generated data is made once."""
    return TaskSubject(find("task", name))


TYPICAL = ("cifar10", "cifar10_c", "cub", "coco", "cub_wsol")


@pytest.mark.parametrize("name", each(paths("task"), *TYPICAL))
@pytest.mark.parametrize("check", TASK_CHECKS, ids=lambda check: check.__name__)
def test_task_keeps_the_contract(name: str, check: Callable[[TaskSubject], str]) -> None:
    said = check(subject_of(name))

    assert said
    if check.__name__ == "augmentation_draws_only_from_its_rng" and said != "trains nothing":
        assert said == ("not augmented" if name in AS_THEY_ARE else "augmented")
