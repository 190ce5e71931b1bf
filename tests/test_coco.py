"""COCO's annotations: gaps in ids, crowds, images without any, and what is wrong with files."""

import contextlib
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.datasets import CocoDetection

from mixbench.contract import Task
from mixbench.contract.loading import load_task
from mixbench.errors import DataError
from mixbench.registry.units import find

VALIDATION = "annotations/instances_val2014.json"


def make_task(**values: Any) -> Task:
    make: Any = load_task(find("task", "coco"))
    task: Task = make(**{"classes": 5, "side": 40, **values})
    return task


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    task = make_task()
    task.synthesize(tmp_path, replace(task.synthetic, train=10, test=8))
    return tmp_path


def change(folder: Path, how: Callable[[dict[str, Any]], object]) -> None:
    """Change the annotations of val2014."""
    content = json.loads((folder / VALIDATION).read_text())
    how(content)
    (folder / VALIDATION).write_text(json.dumps(content))


def test_targets_are_what_torchvision_reads_of_annotated_images(folder: Path) -> None:
    change(folder, lambda content: content["annotations"][0].update(iscrowd=1))
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = CocoDetection(str(folder / "val2014"), str(folder / VALIDATION))
    order = sorted(theirs.coco.getCatIds())

    test: Any = make_task().load("test", folder, 0)

    rows, files = [], []
    for number, (_, annotations) in zip(theirs.ids, theirs, strict=True):
        if annotations:
            present = {annotation["category_id"] for annotation in annotations}
            rows.append([int(category in present) for category in order])
            files.append(folder / "val2014" / theirs.coco.loadImgs(number)[0]["file_name"])
    assert test.targets.tolist() == rows
    assert [test.path(item) for item in range(len(test))] == files
    assert len(theirs) > len(test)  # some images have none
    assert order != list(range(order[0], order[0] + len(order)))  # ids have gaps


def test_fewer_classes_leave_out_what_has_none_of_them(folder: Path) -> None:
    whole, few = (make_task(classes=n).load("test", folder, 0).targets for n in (5, 2))

    assert torch.equal(few, whole[:, :2][whole[:, :2].any(1)])


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "no json": (
        lambda folder: (folder / VALIDATION).write_text('{"images": [}'),
        r"instances_val2014.json must hold annotations in JSON: .*line 1 column 13",
    ),
    "a list": (
        lambda folder: (folder / VALIDATION).write_text("[1, 2]"),
        r"must hold annotations in COCO format",
    ),
    "another image": (
        lambda folder: change(folder, lambda c: c["annotations"][3].update(image_id=999999)),
        r"annotation 3 refers to image 999999, which is not in the file",
    ),
    "another category": (
        lambda folder: change(folder, lambda c: c["annotations"][3].update(category_id=2)),
        r"annotation 3 refers to category 2, which is not in the file",
    ),
    "no file name": (
        lambda folder: change(folder, lambda c: c["images"][0].pop("file_name")),
        r"must hold annotations in COCO format \(KeyError\('file_name'\)\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_wrong_annotations_are_named(folder: Path, what: str) -> None:
    harm, said = WRONG[what]
    harm(folder)

    with pytest.raises(DataError, match=said):
        make_task().load("test", folder, 0)


def test_a_missing_image_is_named(folder: Path) -> None:
    test: Any = make_task().load("test", folder, 0)
    test.path(0).unlink()

    with pytest.raises(DataError, match=r"The image .*COCO_val2014_.*jpg is missing"):
        test.read(torch.tensor([0]), None)


def test_more_categories_than_there_are_are_refused(folder: Path) -> None:
    with pytest.raises(DataError, match=r"has 5 classes, but the task needs 9"):
        make_task(classes=9).load("test", folder, 0)
