"""What every task owes. A new file in tasks/ is tested by being there, on its generated data."""

from collections.abc import Callable
from functools import cache

import pytest
import torch

from mixbench.contract.loading import load_method
from mixbench.errors import Diverged
from mixbench.registry.units import find, paths
from mixbench.testing import TASK_CHECKS, TaskSubject
from mixbench.train.evaluation import predict
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


@pytest.mark.parametrize("name", each(paths("task"), "digits", "cub_wsol"))
@pytest.mark.parametrize("fault", ["output", "weight"])
def test_nan_is_a_failure_and_not_the_first_class(name: str, fault: str) -> None:
    subject = subject_of(name)
    task = subject.task
    model = task.build(task.models[0])
    method = load_method(find("method", "none"))()
    if fault == "weight":
        with torch.no_grad():
            next(model.parameters()).flatten()[0] = torch.nan
    else:
        method.predict = lambda output: output.out * torch.nan  # type: ignore[method-assign]

    with pytest.raises(Diverged, match=r"is (NaN|not finite)"):
        predict(task, model, method, task.load("test", subject.folder, 0))
