"""ImageNet localization on wsolevaluation's metadata: names, boxes and classes."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from mixbench.contract.loading import make_task
from mixbench.errors import DataError
from mixbench.plan.request import base_values
from mixbench.registry.cards import TaskCard
from mixbench.registry.units import find
from mixbench.vision.localization.task import Localization

WNIDS = ("n01440764", "n01443537", "n01484850")


def task(**values: object) -> Localization:
    card = find("task", "imagenet_wsol")
    assert isinstance(card, TaskCard)
    made = make_task(card, base_values(card, "quick") | {"classes": 3, "side": 32} | values)
    assert isinstance(made, Localization)
    return made


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three classes as the official archives and wsolevaluation have them."""
    names, sizes, boxes = [], [], []
    for number, wnid in enumerate(WNIDS):
        for part in ("train", "val"):
            place = tmp_path / part / wnid / f"ILSVRC2012_{part}_{number + 1:08}.JPEG"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (448, 224), (80 * number, 0, 0)).save(place)
        flat = f"val/ILSVRC2012_val_{number + 1:08}.JPEG"
        names.append(flat)
        sizes.append(f"{flat},448,224")
        boxes += [f"{flat},{100 * number},10,{100 * number + 99},109"]
    boxes.append(f"{names[1]},0,0,447,223")
    write(tmp_path / "metadata/test", names, sizes, boxes)
    second = [f"val2/{number}/0.jpeg" for number in range(3)]
    for name in second:
        (tmp_path / name).parent.mkdir(parents=True)
        Image.new("RGB", (50, 40)).save(tmp_path / name)
    write(
        tmp_path / "metadata/val", second, [f"{name},50,40" for name in second],
        [f"{name},5,5,20,20" for name in second],
    )  # fmt: skip
    return tmp_path


def write(folder: Path, names: list[str], sizes: list[str], boxes: list[str]) -> None:
    folder.mkdir(parents=True)
    labels = [f"{name},{number}" for number, name in enumerate(names)]
    for file, lines in zip(
        ("image_ids", "class_labels", "image_sizes", "localization"),
        (names, labels, sizes, boxes), strict=True,
    ):  # fmt: skip
        (folder / f"{file}.txt").write_text("\n".join(lines))


def test_flat_names_are_found_in_class_folders_with_all_boxes(data: Path) -> None:
    split = task().load("test", data, 0)

    assert split.targets.shape == (3, 1 + 2 * 4)
    assert split.targets[:, 0].tolist() == [0, 1, 2]
    # 448 x 224 pixels become 224 x 224: columns are halved.
    assert split.targets[0, 1:].tolist() == [0, 10, 49, 109] * 2  # a single box is repeated
    assert split.targets[1, 1:].tolist() == [50, 10, 99, 109, 0, 0, 223, 223]
    reds = split.read(torch.arange(3), None)[:, 0].mean((1, 2))
    assert reds.diff().gt(0).all()  # each image is that of its class


def test_validation_is_imagenetv2_and_training_uses_all_images(data: Path) -> None:
    made = task()

    assert made.load("validation", data, 0).targets[:, 0].tolist() == [0, 1, 2]
    assert made.load("train", data, 0).targets.tolist() == [0, 1, 2]
    assert made.has_validation
    assert made.held_out == 0.0
    few = task(classes=2)
    assert few.load("test", data, 0).targets[:, 0].tolist() == [0, 1]
    assert few.load("validation", data, 0).targets[:, 0].tolist() == [0, 1]


def test_a_size_that_is_not_the_images_is_named(data: Path) -> None:
    path = data / "metadata/test/image_sizes.txt"
    path.write_text(path.read_text().replace("448,224", "500,375", 1))

    with pytest.raises(DataError, match=r"500 x 375 pixels \(got 448 x 224\)"):
        task().load("test", data, 0)


def test_a_class_without_a_folder_is_named(data: Path) -> None:
    path = data / "metadata/test/class_labels.txt"
    path.write_text(path.read_text().replace(",2", ",7"))

    with pytest.raises(DataError, match="ILSVRC2012_val_00000003"):
        task().load("test", data, 0)
