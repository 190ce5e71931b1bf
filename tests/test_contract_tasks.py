"""What every task owes. A new file in tasks/ is tested by being there, on its generated data."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from mixbench.contract import PARTS, Evaluation, Part
from mixbench.contract.loading import load_method
from mixbench.datasets.listing import is_image
from mixbench.datasets.survey import DataPart, files_of
from mixbench.errors import Diverged
from mixbench.registry.units import find, paths
from mixbench.testing import TASK_CHECKS, TaskSubject
from mixbench.train.evaluation import predict
from tests.support import each

AS_THEY_ARE = {"coco_captions", "voc_detection"}  # tasks whose images are not augmented


_collecting: list[set[Path]] = []  # the sets to which the audit hook adds opened files


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and isinstance(arguments[0], str | bytes):
        for found in _collecting:
            found.add(Path(os.fsdecode(arguments[0])))


sys.addaudithook(_note)


@contextmanager
def opened_files(folder: Path) -> Iterator[set[Path]]:
    """Collect the files inside a folder that are opened in the context."""
    found: set[Path] = set()
    _collecting.append(found)
    try:
        yield found
    finally:
        _collecting.remove(found)
        found -= {path for path in found if not path.is_relative_to(folder) or path.is_dir()}


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


@pytest.mark.parametrize(
    ("name", "fault"), [*product(paths("task"), ["output"]), ("digits", "weight")]
)
@pytest.mark.full
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


@pytest.mark.parametrize("name", each(paths("task"), "tiny_imagenet", "food101", "coco"))
def test_every_file_that_a_part_reads_is_part_of_its_identity(name: str) -> None:
    subject = subject_of(name)
    task, folder = subject.task, subject.folder
    owners: dict[Path, tuple[DataPart, ...]] = dict(files_of(task.data, folder))
    splits: tuple[Part, ...] = ("test",) if isinstance(task, Evaluation) else PARTS
    readers: set[DataPart] = set()
    read = set()
    for part in splits:
        with opened_files(folder) as found:
            split = task.load(part, folder, 0)
            split.read(torch.arange(len(split)), None)
            if part == "test":
                task.class_names(folder)
        assert found
        reader: DataPart = "test" if part == "test" else "train"
        assert not {path for path in found if reader not in owners.get(path, ())}
        read |= found
        readers.add(reader)
    images = {path for path in read if is_image(path.name)}
    known = {path for path, parts in owners.items() if is_image(path.name) and {*parts} & readers}
    assert len(images) >= 0.8 * len(known)  # images without labels are left out
