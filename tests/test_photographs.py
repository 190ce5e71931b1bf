"""Photographs: folders of the user's own, the task clothing, copies of CIFAR, and few images."""

import json
import re
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mixbench.contract.loading import make_task
from mixbench.datasets.locate import CONVERSIONS, CONVERTED, ConvertedMark, locate, origin_of
from mixbench.datasets.own import OwnLayout, own_layout
from mixbench.datasets.survey import contents_digest
from mixbench.declare import Synthetic
from mixbench.errors import DataError, MixbenchError
from mixbench.plan.graph import plan
from mixbench.plan.request import Request, cells_of
from mixbench.plan.workload import workloads
from mixbench.records.declared import origin_of_cell
from mixbench.records.schema import parse
from mixbench.registry.parameters import read_settings
from mixbench.registry.units import find
from mixbench.storage.files import sha256
from mixbench.storage.spec import UnitIdentity
from mixbench.vision.models.build import build
from mixbench.vision.models.weights import in_order
from tests.support import Run

DATA = Path(__file__).parents[2] / "shared" / "data" / "clothing"
needs_photographs = pytest.mark.skipif(not DATA.is_dir(), reason=f"no photographs in {DATA}")
SHORT = (
    *("--set", "folder.side=32", "--set", "folder.epochs=1", "--set", "folder.weights=random"),
    *("--set", "folder.batch_size=10"),
)


def photograph(path: Path, value: int = 0, size: tuple[int, int] = (40, 50)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = torch.randint(256, (size[1], size[0], 3), dtype=torch.uint8)
    noise[0, 0, 0] = value
    Image.fromarray(noise.numpy()).save(path)


def tree(root: Path, parts: tuple[str, ...] = ("train", "test"), number: int = 12) -> Path:
    for part in parts:
        for name in ("cat", "dog"):
            for i in range(number):
                photograph(root / part / name / f"{i}.png", i)
    return root


# --- the user's own folder


@pytest.mark.parametrize(
    ("parts", "variant"),
    [(("train", "test"), "test"), (("train", "val"), "val"), ((".",), "split"),
     (("train", "test", "val"), "test")],
)  # fmt: skip
def test_the_layout_of_a_folder_is_found_out(
    parts: tuple[str, ...], variant: str, tmp_path: Path
) -> None:
    assert own_layout(tree(tmp_path, parts, 1)) == OwnLayout(variant, 2)


def _one_class(root: Path) -> None:
    shutil.rmtree(root / "train" / "dog")


def _nested(root: Path) -> None:
    photograph(root / "train" / "cat" / "kittens" / "0.png")


def _no_images(root: Path) -> None:
    for path in (root / "test" / "cat").iterdir():
        path.rename(path.with_suffix(".txt"))


def _other_classes(root: Path) -> None:
    (root / "test" / "cat").rename(root / "test" / "cow")


def _no_test(root: Path) -> None:
    shutil.rmtree(root / "test")


def _nothing(root: Path) -> None:
    shutil.rmtree(root)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_one_class, "/train must have at least two class folders (got 1: cat)"),
        (_nested, "/train/cat must hold images, not folders (got kittens/)"),
        (_no_images, "/test/cat must hold images (got none)"),
        (_other_classes, "must have the same class folders (only one of them has cat, cow)"),
        (_no_test, "has train/ but neither test/ nor val/"),
        (_nothing, "must be a folder of images in one folder per class (not found)"),
    ],
)
def test_folders_that_cannot_be_used_are_one_sentence(
    spoil: Callable[[Path], None], said: str, tmp_path: Path
) -> None:
    root = tree(tmp_path / "photos", number=1)
    spoil(root)

    with pytest.raises(DataError) as refused:
        cells_of(Request(["none"], ["folder"], [0], data=str(root)))

    assert said in str(refused.value)


@pytest.mark.full
def test_a_folder_is_a_task(mixbench: Run, tmp_path: Path) -> None:
    root = tree(tmp_path / "photos")
    (root / "train" / "cat" / "notes.txt").write_text("no image")
    photograph(root / "val" / "cat" / "0.png")

    by_name = mixbench("run", "-m", "none", "-t", str(root), "--model", "resnet8", *SHORT)
    again = mixbench(
        "run", "-m", "none", "-t", "folder", "--data", str(root), "--model", "resnet8", *SHORT
    )

    assert by_name.returncode == again.returncode == 0, by_name.stderr
    counted = "2 folders, 24 + 24 images, 2 files skipped (.txt, images in val/)"
    assert f"folder: own, {counted}" in by_name.stderr
    assert re.search(r"folder photos-[0-9a-f]{8} v1, resnet8", by_name.stdout)
    assert "own data: photos" in by_name.stdout
    assert "0 to run" in again.stderr
    (path,) = (tmp_path / "store" / "records").glob("folder/*/*.json")
    record = parse(path.read_text(), str(path))
    assert record.data.name == "photos"
    assert record.task.parameters["classes"] == 2
    assert record.task.changed == ["side", "weights"]
    assert record.train_accuracy is not None


def test_a_folder_without_parts_is_split_the_same_for_all_seeds(tmp_path: Path) -> None:
    root = tree(tmp_path, (".",), 20)
    cell = cells_of(Request(["none"], ["folder"], [0], data=str(root)))[0]
    task: Any = make_task(cell.task.card, cell.task.parameters)

    tests = [task.load("test", root, seed) for seed in (0, 1)]
    trains = [task.load("train", root, seed) for seed in (0, 1)]

    assert tests[0].files == tests[1].files
    assert len(tests[0]) == 8
    assert [len(train) for train in trains] == [28, 28]  # 10 % of 32 are for validation
    assert trains[0].files != trains[1].files
    assert not set(tests[0].files) & set(trains[0].files)


@pytest.mark.full
@pytest.mark.parametrize(
    ("parts", "said"), [(("train", "test"), "for both training and testing"), ((".",), "twice")]
)
def test_images_that_occur_twice_are_refused(
    parts: tuple[str, ...], said: str, mixbench: Run, tmp_path: Path
) -> None:
    root = tree(tmp_path / "photos", parts)
    first, last = root / parts[0] / "cat" / "0.png", root / parts[-1] / "dog" / "copy.png"
    shutil.copyfile(first, last)

    done = mixbench("run", "-m", "none", "-t", str(root), "--model", "resnet8", *SHORT)

    assert done.returncode != 0
    assert f"has 1 image {said}" in done.stderr
    assert "copy.png" in done.stderr

    allowed = mixbench(
        "run", "-m", "none", "-t", str(root), "--model", "resnet8", "--allow-duplicates", *SHORT
    )

    assert allowed.returncode == 0, allowed.stderr
    assert "Copies in the data: 1." in " ".join(allowed.stdout.split())


@pytest.mark.parametrize(
    ("parts", "trained"), [(("train", "test"), 2 * 20), ((".",), None)]
)  # of 24 photographs, 2 are held out
def test_a_plan_counts_photographs_unless_the_test_is_drawn(
    tmp_path: Path, parts: tuple[str, ...], trained: int | None
) -> None:
    root, changes = tree(tmp_path / "photos", parts), ["folder.batch_size=10", "folder.epochs=2"]
    asked = Request(["none"], ["folder"], [0], "resnet8", data=str(root), init="random")

    (work,) = workloads(plan(cells_of(replace(asked, settings=read_settings(changes))))).values()

    assert (work.trained if work.known else None) == trained


@pytest.mark.full
def test_photographs_that_do_not_fill_a_batch_are_refused_before_the_run(
    mixbench: Run, tmp_path: Path
) -> None:
    root, large = tree(tmp_path / "photos"), ("--set", "folder.batch_size=23")

    done = mixbench("run", "-m", "none", "-t", str(root), "--model", "resnet8", *SHORT, *large)

    assert done.returncode == 2
    assert "batch_size must be at most the number of training images, 22 (got 23)" in done.stderr
    assert "FAILED" not in done.stderr


def test_a_folder_must_be_given(mixbench: Run) -> None:
    done = mixbench("plan", "-m", "none", "-t", "folder")

    assert done.returncode != 0
    assert "The task folder reads images of your own: give their folder with" in done.stderr


def test_own_images_are_identified_by_content(tmp_path: Path) -> None:
    roots = [tree(tmp_path / name / "photos", ("train", "test"), 2) for name in ("a", "b")]
    for root in roots:
        for path in root.rglob("*.png"):
            Image.open(path).save(path.with_suffix(".bmp"))  # all have one size
            path.unlink()

    cells = cells_of(Request(["none"], [str(root) for root in roots], [0]))

    assert cells[0].data.parts != cells[1].data.parts
    assert cells[0].data.digest != cells[1].data.digest


@pytest.mark.parametrize(
    ("tasks", "changes", "said"),
    [
        (["./photos"], {"data": "synthetic"}, "--data must be left out with the folder ./photos"),
        (["photos"], {}, "For the images in this folder, write ./photos."),
        (["folder"], {"data": "./photos", "settings": read_settings(["folder.variant=split"])},
         "variant must be left out: photos has the layout test (got split)"),
        (["folder"], {"data": "./photos", "init": "pretrained"},
         "which has no protocol finetune: choose one of both with --protocol"),
        (["~nobody/photos"], {}, "~nobody/photos cannot be read"),
    ],
)  # fmt: skip
def test_contradictions_about_a_folder_are_one_sentence(
    tasks: list[str], changes: Any, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree(tmp_path / "photos", number=1)
    monkeypatch.chdir(tmp_path)

    with pytest.raises(MixbenchError) as refused:
        plan(cells_of(Request(["none"], tasks, [0], **changes)), without_data=True)

    assert said in str(refused.value)


# --- clothing


@needs_photographs
def test_published_validation_and_test_images_are_the_test(tmp_path: Path) -> None:
    root = shutil.copytree(DATA, tmp_path / "clothing")
    (root / "test" / "hat").rename(tmp_path / "hats")
    for name in {path.name for path in (root / "train").iterdir()}:
        (root / "validation" / name).mkdir(parents=True)
        (root / "test" / name).mkdir(exist_ok=True)
        for part in ("validation", "test"):
            shutil.copyfile(
                next((root / "train" / name).iterdir()), root / part / name / f"{part}.jpg"
            )
    card = find("task", "clothing")

    task: Any = make_task(card, {**card.defaults, "side": 32})
    test, train = task.load("test", root, 0), task.load("train", root, 0)

    assert {path.parts[-3] for path in test.files} == {"validation", "test"}
    assert {path.parts[-3] for path in train.files} == {"train"}
    assert test.read(torch.arange(2), None).shape == (2, 3, 32, 32)


def test_an_archive_is_unpacked_without_its_top_folder(tmp_path: Path) -> None:
    top = tree(tmp_path / "clothing-dataset-small-1196151", ("train", "validation", "test"), 1)
    with tarfile.open(tmp_path / "archive.tar.gz", "w:gz") as tar:
        tar.add(top, top.name)
    (tmp_path / "data").mkdir()
    card = find("task", "clothing")

    make_task(card, card.defaults).unpack(tmp_path / "archive.tar.gz", tmp_path / "data")

    assert [path.name for path in sorted((tmp_path / "data").iterdir())] == [
        *("test", "train", "validation"),
    ]


def test_contents_decide_whether_photographs_are_official(tmp_path: Path) -> None:
    data = find("task", "clothing").declared.data
    tree(tmp_path, ("train", "validation", "test"), 1)
    trees = {name: (number, "") for name, number in data.file_counts.items()}

    assert origin_of(data, {}, trees) == "counted"
    before = contents_digest(tmp_path / "train")
    photograph(tmp_path / "train" / "cat" / "0.png", 200)
    assert before != contents_digest(tmp_path / "train")
    assert locate(find("task", "clothing"), str(tmp_path)).origin == "modified"


def test_weights_of_a_file_take_the_names_of_the_model() -> None:
    net: Any = build("tf_efficientnet_lite0", classes=10, size=(64, 64))
    own = net.net.state_dict()
    file = {f"tensor{i}": tensor + 1 for i, tensor in enumerate(own.values())}
    file["tensor294"], file["tensor295"] = torch.ones(1000, 1280), torch.ones(1000)

    found = in_order(file, net.net)

    assert list(found) == list(own)
    assert torch.equal(found["conv_stem.weight"], own["conv_stem.weight"] + 1)
    swapped = dict(sorted(file.items()))  # tensor10 comes before tensor2
    assert in_order(swapped, net.net) is swapped


# --- few images, and copies


def test_few_images_are_drawn_for_each_class_and_seed(tmp_path: Path) -> None:
    card = find("task", "cifar10")
    task: Any = make_task(card, {**card.defaults, "classes": 2})
    task.synthesize(tmp_path, Synthetic(train=60, test=5))
    few: Any = make_task(card, {**card.defaults, "classes": 2, "per_class": 20})

    parts = {
        (part, seed): few.load(part, tmp_path, seed)
        for part in ("train", "validation", "test")
        for seed in (0, 1)
    }

    for seed in (0, 1):
        assert parts["train", seed].by_class.counts.tolist() == [18, 18]
        assert parts["validation", seed].by_class.counts.tolist() == [2, 2]
        assert len(parts["test", seed]) == 10
    first, second = (parts["train", seed].read(torch.arange(36), None) for seed in (0, 1))
    assert not torch.equal(first, second)
    again = few.load("train", tmp_path, 0).read(torch.arange(36), None)
    assert torch.equal(first, again)
    more: Any = make_task(card, {**card.defaults, "classes": 2, "per_class": 61})
    with pytest.raises(DataError, match=r"class 0 has 60 \(got 61\)"):
        more.load("train", tmp_path, 0)


def copied(root: Path, train: int = 6, test: int = 2) -> Path:
    for part, number in (("train", train), ("test", test)):
        for name in range(10):
            for i in range(number):
                photograph(root / part / str(name) / f"{i}.png", i, (32, 32))
    return root


@pytest.fixture
def small_cifar10(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The task cifar10, as if the data set had 60 training and 20 test images."""
    card = find("task", "cifar10")
    task = make_task(card, card.defaults)
    monkeypatch.setattr(task, "data", replace(task.data, num_train=60, num_test=20))
    return task


def test_a_copy_is_converted(small_cifar10: Any, tmp_path: Path) -> None:
    copy = copied(tmp_path / "copy")
    (tmp_path / "made").mkdir()

    small_cifar10.convert(copy, tmp_path / "made")

    test = small_cifar10.load("test", tmp_path / "made", 0)
    first = torch.from_numpy(np.array(Image.open(copy / "test" / "0" / "0.png")))
    shown = test.unnormalized().read(torch.tensor([0]), None)[0]
    assert torch.equal((255 * shown).round().byte().permute(1, 2, 0), first)
    assert test.by_class.counts.tolist() == [2] * 10
    assert small_cifar10.class_names(tmp_path / "made") == [str(i) for i in range(10)]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda copy: (copy / "test/3/1.png").unlink(), "must have 20 test images (got 19)"),
        (lambda copy: shutil.rmtree(copy / "test/3"), "must have the same class folders"),
        (lambda copy: shutil.copyfile(copy / "train/0/0.png", copy / "test/0/0.png"), "same image"),
        (lambda copy: photograph(copy / "train/0/0.png", 0, (33, 32)), "must be 32 x 32 pixels"),
    ],
)
def test_copies_of_something_else_are_refused(
    spoil: Callable[[Path], object], said: str, small_cifar10: Any, tmp_path: Path
) -> None:
    spoil(copied(tmp_path / "copy"))
    (tmp_path / "made").mkdir()

    with pytest.raises(DataError) as refused:
        small_cifar10.convert(tmp_path / "copy", tmp_path / "made")

    assert said in str(refused.value)


@pytest.mark.full
def test_a_re_encoded_copy_is_labelled_everywhere(mixbench: Run, tmp_path: Path) -> None:
    card, made = find("task", "cifar10"), tmp_path / "cifar10"
    made.mkdir()
    make_task(card, card.defaults).synthesize(made, Synthetic(train=20, test=4))
    files = {name: sha256(made / name) for name in card.declared.data.files}
    identity = UnitIdentity("cifar10", 1, {})
    CONVERSIONS.write(made / CONVERTED, ConvertedMark(identity, "", files))
    run = (
        "run", "-m", "none", "-t", "cifar10", "--data", str(made), "--protocol", "quick",
        "--set", "cifar10.epochs=1", "--set", "cifar10.batch_size=20", "--model", "resnet8",
    )  # fmt: skip

    verified = mixbench("data", "verify", "cifar10", "--data", str(made))
    done = mixbench(*run)
    (made / "cifar-10-batches-py" / "test_batch").write_bytes(
        (made / "cifar-10-batches-py" / "data_batch_1").read_bytes()
    )
    changed = mixbench(*run)

    assert verified.returncode == done.returncode == 0, done.stderr
    assert "is complete: a re-encoded copy, which is lossy." in verified.stdout
    assert "re-encoded data: cifar10" in done.stdout
    assert "The images are a re-encoded copy, which is lossy" in done.stdout
    assert "modified data: cifar10" in changed.stdout
    records = (tmp_path / "store" / "records").glob("cifar10/*/*.json")
    assert {json.loads(path.read_text())["data"]["origin"] for path in records} == {"modified"}


def test_images_of_a_copy_label_the_evaluations_of_its_models() -> None:
    cell = cells_of(Request(["none"], ["cifar10_fgsm"], [0], protocol="quick"))[0]
    assert cell.base is not None
    lossy = replace(cell.base, data=replace(cell.base.data, origin="re-encoded"))
    official = replace(cell.data, origin="official")

    assert origin_of_cell(replace(cell, base=lossy, data=official)) == "re-encoded"


def test_only_some_tasks_can_be_converted(mixbench: Run, tmp_path: Path) -> None:
    done = mixbench("data", "convert", "food101", "--from", str(tmp_path), "--to", "x")

    assert done.returncode == 2
    assert "Food101 cannot be converted from another format." in done.stderr


# --- localization


def test_boxes_of_small_photographs_are_read_for_their_test(tmp_path: Path) -> None:
    card, base = find("task", "tiny_wsol"), find("task", "tiny_imagenet")
    of_base = {**base.defaults, "classes": 3}
    task: Any = make_task(card, card.defaults, of_base)
    task.synthesize(tmp_path, Synthetic(train=4, test=5))

    split = task.load("test", tmp_path, 0)

    assert split.targets.shape == (15, 5)
    line = (tmp_path / "tiny-imagenet-200/val/val_annotations.txt").read_text().splitlines()[0]
    box = [int(text) for text in line.split("\t")[2:]]
    assert split.targets[0, 1:].tolist() == [int(corner * 224 / 64) for corner in box]
    path = tmp_path / "tiny-imagenet-200/val/val_annotations.txt"
    path.write_text(path.read_text().replace("\n", "\t7\n", 1))
    with pytest.raises(DataError, match="line 1: must end with the box"):
        task.load("test", tmp_path, 0)
