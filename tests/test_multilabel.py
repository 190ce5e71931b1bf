"""Several labels for each image: losses, mixed targets, what VOC's files say, and its refusals."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.datasets import VOCDetection

from mixbench.contract import Sources, Task, mixed_loss
from mixbench.contract.loading import load_task
from mixbench.errors import DataError
from mixbench.registry.units import find
from mixbench.vision.tasks.multilabel import asymmetric_loss, binary_cross_entropy

ROOT = "VOCdevkit/VOC2007"


def make_task(**values: Any) -> Task:
    make: Any = load_task(find("task", "voc"))
    task: Task = make(**{"classes": 5, "side": 40, **values})
    return task


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    task = make_task()
    task.synthesize(tmp_path, replace(task.synthetic, train=10, test=6))
    return tmp_path


def test_targets_are_what_torchvision_reads(folder: Path) -> None:
    theirs = VOCDetection(str(folder), year="2007", image_set="test")
    task = make_task()
    names = task.class_names(folder)

    test = task.load("test", folder, 0)

    rows = []
    for _, content in theirs:
        row = [0] * len(names)
        for thing in content["annotation"]["object"]:
            place = names.index(thing["name"])
            row[place] = 1 if thing["difficult"] == "0" else row[place] or -1
        rows.append(row)
    assert test.targets.tolist() == [row for row in rows if any(row)]
    assert {-1, 0, 1} == {value for row in rows for value in row}


def test_parts_are_of_the_official_lists_and_share_nothing(folder: Path) -> None:
    task = make_task(holdout=0.25)
    train, validation, test = (task.load(p, folder, 0) for p in ("train", "validation", "test"))

    def names(split: Any) -> set[str]:
        return {split.path(item).stem for item in range(len(split))}

    lists = {
        part: set((folder / ROOT / f"ImageSets/Main/{part}.txt").read_text().split())
        for part in ("trainval", "test")
    }
    assert names(train) | names(validation) <= lists["trainval"]
    assert not names(train) & names(validation)
    assert names(test) <= lists["test"]
    assert 10 <= len(validation) <= 13


def test_difficult_objects_train_and_do_not_count() -> None:
    task = make_task()
    out = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([[1, 0, 0, 0, 1]] * 3 + [[0, 1, 1, 1, 0]] * 3, dtype=torch.int8)
    out[:, 0] = torch.tensor([-9.0, 3, 2, 1, 0, -1])
    hard = targets.clone()
    hard[0, 0] = -1

    scores, others = (task.score({"outputs": out}, t) for t in (targets, hard))

    assert torch.equal(task.loss(out, targets), task.loss(out, hard))
    assert scores["map"] != others["map"]
    assert scores["map"].by_class is not None
    assert others["map"].by_class is not None
    assert scores["map"].by_class[1:] == others["map"].by_class[1:]


def test_labels_without_images_are_left_out_and_counted() -> None:
    task = make_task()
    targets = torch.tensor([[1, 0, 0, 0, 1], [0, 1, 0, 0, 0]], dtype=torch.int8)
    out = torch.tensor([[2.0, 1, 0, 0, 3], [1, 2, 0, 0, 1]])

    scores = task.score({"outputs": out}, targets)

    assert scores["map"].value == 100
    assert scores["map"].by_class == [100, 100, None, None, 100]
    assert scores["labels_without_images"].value == 2


@pytest.mark.parametrize("criterion", ["bce", "asl"])
def test_mixed_losses_are_the_means_of_their_sources(criterion: str) -> None:
    task = make_task(criterion=criterion)
    rng = torch.Generator().manual_seed(0)
    out = torch.randn(4, 5, generator=rng)
    targets = torch.randint(0, 2, (4, 5), generator=rng)
    sources = Sources.pair(torch.tensor([1, 2, 3, 0]), 0.3)

    found = mixed_loss(task.loss, out, sources, targets)

    own, partner = task.loss(out, targets), task.loss(out, targets[[1, 2, 3, 0]])
    torch.testing.assert_close(found, (0.3 * own + 0.7 * partner).mean())
    mixed = 0.3 * targets + 0.7 * targets[[1, 2, 3, 0]]
    whole = binary_cross_entropy if criterion == "bce" else asymmetric_loss
    torch.testing.assert_close(found, whole(out, mixed).mean())


def test_the_asymmetric_loss_is_written_out() -> None:
    out, targets = torch.tensor([[0.5, -1.0, 2.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    p = [1 / (1 + 2.718281828459045**-v) for v in (0.5, -1.0, 2.0)]

    found = asymmetric_loss(out, targets)

    log = torch.log(torch.tensor([p[0], 1 - p[1] + 0.05, 1 - p[2] + 0.05]))
    weights = torch.tensor([1.0, (p[1] - 0.05) ** 4, (p[2] - 0.05) ** 4])
    torch.testing.assert_close(found, -(weights * log).sum()[None])


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "no annotation": (lambda path: path.unlink(), r"The annotation .*xml is missing"),
    "no xml": (
        lambda path: path.write_text("<annotation>"),
        r"xml must be an annotation in XML: .*line 1",
    ),
    "another class": (
        lambda path: path.write_text("<a><size><width>9</width><height>9</height></size>"
            "<object><name>dragon</name></object></a>"),
        r"VOC's 20 classes for each object \(got 'dragon'\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_annotation_is_named(folder: Path, what: str) -> None:
    harm, said = WRONG[what]
    first = (folder / ROOT / "ImageSets/Main/test.txt").read_text().split()[0]
    harm(folder / ROOT / f"Annotations/{first}.xml")

    with pytest.raises(DataError, match=said):
        make_task().load("test", folder, 0)


def test_an_annotation_without_image_is_named(folder: Path) -> None:
    test = make_task().load("test", folder, 0)
    next((folder / ROOT / "JPEGImages").glob("1*.jpg")).unlink()

    with pytest.raises(DataError, match=r"The image .*jpg is missing"):
        test.read(torch.arange(len(test)), None)


@pytest.mark.full
def test_a_run_mixes_multi_hot_targets_and_keeps_a_table_by_class(
    folder: Path, mixbench: Callable[..., Any], tmp_path: Path
) -> None:
    options = ["-m", "random_patchmix", "-t", "voc", "--protocol", "quick", "--data", str(folder)]
    few = {"epochs": 1, "classes": 5, "side": 32, "batch_size": 10, "mix_in": "finetune"}
    options += [part for n, v in few.items() for part in ("--set", f"voc.{n}={v}")]

    done = mixbench("run", *options, "--init", "random")
    drawn = mixbench("report", "--figures")

    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "store").glob("records/voc/random_patchmix/*.json")
    metrics = json.loads(path.read_text())["metrics"]
    (ranked,) = (m for m in metrics if m["primary"] and m["at"] == "last")
    assert list(ranked["by_class"]) == make_task().class_names(folder)
    values = [v for v in ranked["by_class"].values() if v is not None]
    assert ranked["value"] == pytest.approx(sum(values) / len(values))
    assert "mixes.png" in drawn.stdout
