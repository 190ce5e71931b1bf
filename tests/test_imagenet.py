"""Tiny-ImageNet and ImageNet: their readers against ImageFolder, their archives, their refusals."""

import io
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from torchvision.datasets import ImageFolder

from mixbench.contract import Task
from mixbench.contract.loading import load_task
from mixbench.errors import DataError
from mixbench.registry.units import find
from mixbench.vision.images.splits import ResidentSplit, StreamedSplit

ROOT = "tiny-imagenet-200"


@pytest.fixture
def tiny(tmp_path: Path) -> tuple[Any, Path]:
    make: Any = load_task(find("task", "tiny_imagenet"))
    task = make(classes=4)
    task.synthesize(tmp_path, replace(task.synthetic, train=10, test=3))
    return task, tmp_path


@pytest.fixture
def imagenet(tmp_path: Path) -> tuple[Any, Path]:
    make: Any = load_task(find("task", "imagenet"))
    task = make(classes=3, side=40, holdout=0.2)
    task.synthesize(tmp_path, replace(task.synthetic, train=10, test=3))
    return task, tmp_path


def test_tiny_training_images_are_image_folders(tiny: tuple[Task, Path]) -> None:
    task, folder = tiny
    theirs = ImageFolder(str(folder / ROOT / "train"))
    rows = {(np.asarray(image).tobytes(), label) for image, label in theirs}

    parts = [task.load(part, folder, 0) for part in ("train", "validation")]

    ours = set()
    for split in parts:
        assert isinstance(split, ResidentSplit)
        pixels = split.images.permute(0, 2, 3, 1).contiguous().numpy()
        ours |= {(p.tobytes(), t) for p, t in zip(pixels, split.targets.tolist(), strict=True)}
    assert ours == rows
    assert list(task.class_names(folder)) == theirs.classes


def test_tiny_test_labels_are_the_annotations(tiny: tuple[Task, Path]) -> None:
    task, folder = tiny
    lines = (folder / ROOT / "val/val_annotations.txt").read_text().splitlines()
    names = sorted((folder / ROOT / "wnids.txt").read_text().split())

    test = task.load("test", folder, 0)

    assert test.targets.tolist() == [names.index(line.split("\t")[1]) for line in lines]
    first = Image.open(folder / ROOT / "val/images" / lines[0].split("\t")[0])
    assert isinstance(test, ResidentSplit)
    np.testing.assert_array_equal(test.images[0].permute(1, 2, 0), np.asarray(first))


def test_tiny_boxes_are_where_things_are(tiny: tuple[Task, Path]) -> None:
    _, folder = tiny
    for line in (folder / ROOT / "val/val_annotations.txt").read_text().splitlines():
        left, top, right, bottom = map(int, line.split("\t")[2:])
        assert 0 <= left < right <= 63
        assert 0 <= top < bottom <= 63


@pytest.mark.parametrize("line", ["val_0.JPEG", "val_0.JPEG\tn99999999\t0\t0\t1\t1"])
def test_a_tiny_annotation_of_another_form_is_named(tiny: tuple[Task, Path], line: str) -> None:
    task, folder = tiny
    path = folder / ROOT / "val/val_annotations.txt"
    path.write_text(line + "\n")

    with pytest.raises(DataError, match=r"val_annotations\.txt, line 1: must hold"):
        task.load("test", folder, 0)


def test_imagenet_is_an_image_folder(imagenet: tuple[Task, Path]) -> None:
    task, folder = imagenet
    theirs = ImageFolder(str(folder / "val"))

    test = task.load("test", folder, 0)

    assert isinstance(test, StreamedSplit)
    assert [str(test.path(item)) for item in range(len(test))] == [
        path for path, _ in theirs.samples
    ]
    assert test.targets.tolist() == theirs.targets
    assert list(task.class_names(folder)) == theirs.classes
    assert test.read(torch.arange(2), None).shape == (2, 3, 40, 40)


def test_imagenet_parts_share_no_file(imagenet: tuple[Task, Path]) -> None:
    task, folder = imagenet
    train, validation = (task.load(part, folder, 0) for part in ("train", "validation"))
    assert isinstance(train, StreamedSplit)
    assert isinstance(validation, StreamedSplit)

    files = [{split.path(item) for item in range(len(split))} for split in (train, validation)]
    assert not files[0] & files[1]
    assert validation.targets.bincount().tolist() == [2, 2, 2]
    assert len(train) == 24


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def class_archive(folder: Path) -> bytes:
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w") as tar:
        for path in sorted(folder.iterdir()):
            add(tar, path.name, path.read_bytes())
    return inner.getvalue()


def packed(folder: Path, out: Path, *, labels: int | None = None) -> None:
    """Pack a folder of classes as the three official archives."""
    out.mkdir()
    wnids = sorted(path.name for path in (folder / "train").iterdir())
    with tarfile.open(out / "ILSVRC2012_img_train.tar", "w") as outer:
        for wnid in wnids:
            add(outer, f"{wnid}.tar", class_archive(folder / "train" / wnid))
    images = [(path, wnid) for wnid in wnids for path in (folder / "val" / wnid).iterdir()]
    images.sort(key=lambda pair: pair[0].read_bytes())  # in another order than that of classes
    with tarfile.open(out / "ILSVRC2012_img_val.tar", "w") as tar:
        for number, (path, _) in enumerate(images, 1):
            add(tar, f"ILSVRC2012_val_{number:08}.JPEG", path.read_bytes())
    table = np.zeros((len(wnids), 1), [("ILSVRC2012_ID", "O"), ("WNID", "O")])
    numbers = {wnid: 2 * i + 5 for i, wnid in enumerate(wnids)}
    for row, wnid in zip(table, wnids, strict=True):
        row[0] = (numbers[wnid], wnid)
    mat = io.BytesIO()
    savemat(mat, {"synsets": table})
    truth = "".join(f"{numbers[wnid]}\n" for _, wnid in images[:labels])
    with tarfile.open(out / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as tar:
        inside = "ILSVRC2012_devkit_t12/data"
        add(tar, f"{inside}/meta.mat", mat.getvalue())
        add(tar, f"{inside}/ILSVRC2012_validation_ground_truth.txt", truth.encode())


def contents(folder: Path) -> dict[str, set[bytes]]:
    classes = [path for part in ("train", "val") for path in (folder / part).iterdir()]
    return {
        str(path.relative_to(folder)): {image.read_bytes() for image in path.iterdir()}
        for path in classes
    }


def test_imagenets_archives_become_folders(imagenet: tuple[Task, Path], tmp_path: Path) -> None:
    task, folder = imagenet
    packed(folder, tmp_path / "archives")
    out = tmp_path / "out"

    for archive in task.data.archives:
        task.unpack(tmp_path / "archives" / archive.name, out)

    assert contents(out) == contents(folder)


def test_a_devkit_with_too_few_labels_is_refused(
    imagenet: tuple[Task, Path], tmp_path: Path
) -> None:
    task, folder = imagenet
    packed(folder, tmp_path / "archives", labels=4)
    task.unpack(tmp_path / "archives/ILSVRC2012_devkit_t12.tar.gz", tmp_path / "out")

    with pytest.raises(DataError, match=r"label of the devkit \(got 9 images and 4 labels\)"):
        task.unpack(tmp_path / "archives/ILSVRC2012_img_val.tar", tmp_path / "out")


def test_validation_images_need_the_devkit(imagenet: tuple[Task, Path], tmp_path: Path) -> None:
    task, folder = imagenet
    packed(folder, tmp_path / "archives")

    with pytest.raises(DataError, match=r"must hold meta\.mat"):
        task.unpack(tmp_path / "archives/ILSVRC2012_img_val.tar", tmp_path / "out")


def test_a_truncated_archive_of_classes_is_named(
    imagenet: tuple[Task, Path], tmp_path: Path
) -> None:
    task, folder = imagenet
    packed(folder, tmp_path / "archives")
    path = tmp_path / "archives/ILSVRC2012_img_train.tar"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    with pytest.raises(DataError, match=r"ILSVRC2012_img_train\.tar is damaged"):
        task.unpack(path, tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "kind"),
    [("../../n00000001.tar", tarfile.REGTYPE), ("n00000001.tar", tarfile.DIRTYPE),
     ("n00000001.tar", tarfile.SYMTYPE), ("readme.txt", tarfile.REGTYPE)],
    ids=["elsewhere", "folder", "link", "text"],
)  # fmt: skip
def test_only_archives_of_classes_are_unpacked(name: str, kind: bytes, tmp_path: Path) -> None:
    task = load_task(find("task", "imagenet"))()
    path = tmp_path / "ILSVRC2012_img_train.tar"
    with tarfile.open(path, "w") as tar:
        info = tarfile.TarInfo(name)
        info.type = kind
        tar.addfile(info)

    with pytest.raises(DataError, match=r"img_train\.tar cannot be unpacked: it must hold one"):
        task.unpack(path, tmp_path / "out")

    assert not (tmp_path / "out").exists()
