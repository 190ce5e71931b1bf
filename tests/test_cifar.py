"""The readers of CIFAR against torchvision's, and what they refuse."""

import io
import os
import pickle  # noqa: TID251  # the official files are pickles
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torchvision.datasets import CIFAR10, CIFAR100

from mixbench.contract import Task
from mixbench.contract.loading import load_task
from mixbench.errors import DataError
from mixbench.plan.graph import plan
from mixbench.plan.request import Request, cells_of
from mixbench.records.declared import Declared
from mixbench.registry.units import find
from mixbench.vision.images.splits import ResidentSplit

CLASSES = {"cifar10": 10, "cifar100": 100}
BATCH = {"cifar10": "cifar-10-batches-py/data_batch_3", "cifar100": "cifar-100-python/train"}


class TheirsOf10(CIFAR10):  # type: ignore[misc]  # torchvision has no types
    """Torchvision's reader, without its comparison of checksums."""

    meta: ClassVar[Any] = {**CIFAR10.meta, "md5": None}

    def _check_integrity(self) -> bool:
        return True


class TheirsOf100(CIFAR100):  # type: ignore[misc]  # torchvision has no types
    """Torchvision's reader, without its comparison of checksums."""

    meta: ClassVar[Any] = {**CIFAR100.meta, "md5": None}

    def _check_integrity(self) -> bool:
        return True


THEIRS: dict[str, Any] = {"cifar10": TheirsOf10, "cifar100": TheirsOf100}


@pytest.fixture(params=list(CLASSES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def task(name: str) -> Task:
    return load_task(find("task", name))()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The generated data of both tasks."""
    folders = {name: tmp_path_factory.mktemp(name) for name in CLASSES}
    for name, folder in folders.items():
        task = load_task(find("task", name))()
        task.synthesize(folder, replace(task.synthetic, train=20, test=3))
    return folders


@pytest.fixture
def folder(name: str, made: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the data, which the test may damage."""
    shutil.copytree(made[name], tmp_path, dirs_exist_ok=True)
    return tmp_path


def part(task: Task, name: Any, folder: Path) -> ResidentSplit:
    split = task.load(name, folder, 0)
    assert isinstance(split, ResidentSplit)
    return split


def test_the_test_part_is_what_torchvision_reads(name: str, task: Task, folder: Path) -> None:
    theirs = THEIRS[name](str(folder), train=False)

    ours = part(task, "test", folder)

    np.testing.assert_array_equal(ours.images.permute(0, 2, 3, 1), theirs.data)
    assert ours.targets.tolist() == theirs.targets
    assert list(task.class_names(folder)) == theirs.classes


def test_train_and_validation_are_what_torchvision_reads(
    name: str, task: Task, folder: Path
) -> None:
    theirs = THEIRS[name](str(folder), train=True)

    ours = [part(task, split, folder) for split in ("train", "validation")]

    images = torch.cat([split.images for split in ours]).permute(0, 2, 3, 1).flatten(1)
    targets = torch.cat([split.targets for split in ours])
    mine = {(row.tobytes(), label) for row, label in zip(images.numpy(), targets.tolist())}  # noqa: B905
    assert mine == {(r.tobytes(), label) for r, label in zip(theirs.data, theirs.targets)}  # noqa: B905
    assert len(targets) == len(theirs.targets) == 20 * CLASSES[name]
    assert ours[1].targets.bincount().tolist() == [2] * CLASSES[name]


def test_a_pickle_of_python_2_is_read(name: str, task: Task, folder: Path) -> None:
    """The published files were written by Python 2: texts are bytes, arrays name numpy.core."""
    path = folder / BATCH[name]
    before = part(task, "train", folder).images
    content = pickle.loads(path.read_bytes(), encoding="latin1")
    old = pickle.dumps(content, protocol=0).replace(b"numpy._core", b"numpy.core")
    path.write_bytes(old)

    assert torch.equal(part(task, "train", folder).images, before)


def test_fewer_classes_are_the_first_ones(name: str, folder: Path) -> None:
    few = with_classes(name, 3)

    assert set(part(few, "test", folder).targets.tolist()) == {0, 1, 2}
    assert len(few.class_names(folder)) == 3


def with_classes(name: str, number: int) -> Task:
    make: Any = load_task(find("task", name))
    task: Task = make(classes=number)
    return task


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = pickle.loads(path.read_bytes(), encoding="latin1")
    change(content)
    path.write_bytes(pickle.dumps(content, protocol=2))


class Evil:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("was-run",)


def key(content: dict[str, Any]) -> str:
    return next(name for name in content if name.endswith("labels"))


def first_label(value: int) -> Callable[[dict[str, Any]], object]:
    return lambda content: content[key(content)].__setitem__(0, value)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (first_label(100), r"image 0 has class 100, which must be in 0\.\."),
        (first_label(-1), r"image 0 has class -1, which must be in 0\.\."),
        (lambda c: c.update(data=c["data"][:, :5]), "must hold 'data' in rows of 3072"),
        (lambda c: c.pop("data"), "must hold 'data'"),
        (lambda c: c[key(c)].pop(), "an integer for each of its"),
        (lambda c: c[key(c)].__setitem__(0, "a"), "an integer for each of its"),
        (lambda c: c.update({key(c): [x / 3 for x in c[key(c)]]}), "an integer for each of its"),
        (lambda c: c.update(data=c["data"] / 2), "must have dtype u1"),
        (lambda c: c.update(data=5), "must hold 'data' in rows of 3072"),
        (lambda c: c.update(evil=Evil()), "mkdir, which is not allowed"),
    ],
    ids=[
        "label too high",
        "label negative",
        "shape",
        "no data",
        "too few labels",
        "text for a label",
        "fractions",
        "fractions of pixels",
        "no array",
        "code",
    ],
)
def test_a_wrong_batch_is_named(
    name: str, task: Task, folder: Path, change: Callable[[dict[str, Any]], object], complaint: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(folder)
    rewrite(folder / BATCH[name], change)

    with pytest.raises(DataError, match=complaint) as caught:
        task.load("train", folder, 0)

    assert str(folder / BATCH[name]) in str(caught.value)
    assert not (folder / "was-run").exists()


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-500]),
        lambda path: path.write_bytes(b"text"),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(pickle.dumps([1, 2], protocol=2)),
        lambda path: path.write_bytes(path.read_bytes().replace(b"u1", b"u9")),
        Path.unlink,
    ],
    ids=["truncated", "text", "empty", "list", "type", "missing"],
)
def test_a_file_that_is_no_table_is_named(
    name: str, task: Task, folder: Path, harm: Callable[[Path], object]
) -> None:
    harm(folder / BATCH[name])

    with pytest.raises(DataError, match="must be a pickled dict") as caught:
        task.load("train", folder, 0)

    assert str(folder / BATCH[name]) in str(caught.value)


def test_more_classes_than_the_data_has_is_refused(folder: Path, name: str) -> None:
    many = with_classes(name, 101)

    with pytest.raises(DataError, match="but the task needs 101"):
        many.load("train", folder, 0)


def test_what_is_written_is_read_by_plain_pickle(name: str, folder: Path) -> None:
    content = pickle.load(io.BytesIO((folder / BATCH[name]).read_bytes()))

    assert content["data"].dtype == np.uint8
    assert content["data"].shape[1] == 3072


@pytest.mark.full
def test_training_starts_from_weights_of_timm(tmp_path: Path, mixbench: Callable[..., Any]) -> None:
    net = timm.create_model("test_resnet", num_classes=7)
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    run = ["run", "-m", "none", "-t", "cifar10", "--data", "synthetic", "--model", "test_resnet"]
    run += ["--limit", "100", "--max-steps", "1", "--set", "cifar10.lr=1e-20"]

    done = mixbench(*run, "--init", "net.safetensors")

    assert done.returncode == 0, done.stderr
    assert "weights=net.safetensors" in done.stdout
    (kept,) = (tmp_path / "store/stages").glob("*/weights/epoch-1.safetensors")
    trained = load_file(kept)
    assert trained["model.net.conv1.0.weight"].allclose(net.state_dict()["conv1.0.weight"])
    assert len(trained["model.net.fc.weight"]) == 10
    for word in ("pretrained", "synthetic", "published"):
        refused = mixbench(*run, "--init", word)
        assert refused.returncode == 2
        assert f"cifar10 cannot start from {word} weights: weights must be random, timm" in (
            refused.stderr
        )


def test_keys_and_records_of_trainings_from_random_weights_stay_valid() -> None:
    def planned(init: str | None) -> tuple[str, Mapping[str, object]]:
        (cell,) = cells_of(Request(["none"], ["cifar10"], [0], init=init, without_data=True))
        (stage,) = (s for s in plan([cell]).stages.values() if s.kind == "train")
        parameters = stage.identity.task.parameters
        assert ("weights" in Declared.of(cell).task.parameters) == ("weights" in parameters)
        return stage.key, parameters

    plain, usual, timms = planned(None), planned("random"), planned("timm")

    assert plain == usual
    assert plain[1] == {"classes": 10, "holdout": 0.1, "per_class": 0}
    assert str(timms[1]["weights"]).startswith("timm of ")
