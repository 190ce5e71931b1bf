"""Corrupted images: read as published, scored as published."""

import colorsys
import json
import math
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torchmetrics.functional.classification import multiclass_calibration_error

from mixbench.contract.loading import load_method, make_task
from mixbench.datasets.locate import num_test_items
from mixbench.declare import CORRUPTIONS
from mixbench.errors import DataError
from mixbench.registry.units import find
from mixbench.train.evaluation import predict
from mixbench.vision.images.decode import read_image
from mixbench.vision.images.splits import ResidentSplit
from mixbench.vision.robustness import computed
from mixbench.vision.robustness.corruptions import (
    ALEXNET,
    SEVERITIES,
    conditions,
    corruption_errors,
    error_rates,
)
from mixbench.vision.robustness.synthetic import STANDS_FOR, corrupted
from tests.support import Run

SEED = 0


def made(name: str, folder: Path, **subject: Any) -> Any:
    task = make_task(find("task", name), {}, subject)
    task.synthesize(folder, replace(task.synthetic, test=2))
    return task


def test_every_corruption_has_one_that_stands_for_it() -> None:
    assert tuple(STANDS_FOR) == CORRUPTIONS
    assert len(CORRUPTIONS) == 15


@pytest.mark.parametrize("name", ["gaussian_noise", "pixelate", "fog"])
def test_a_corruption_is_seeded_and_grows_with_its_severity(name: str) -> None:
    task = make_task(find("task", "cifar10"), {})
    rng = torch.Generator().manual_seed(4)
    smooth = F.interpolate(torch.rand(12, 3, 5, 5, generator=rng), (30, 34), mode="bicubic")
    images = (255 * smooth.clamp(0, 1)).to(torch.uint8)

    changed = [corrupted(images, name, severity, SEED) for severity in range(1, SEVERITIES + 1)]

    assert task.image_size == (32, 32)
    assert all(c.shape == images.shape and c.dtype == torch.uint8 for c in changed)
    assert torch.equal(changed[2], corrupted(images, name, 3, SEED))
    distances = [float((c.float() - images.float()).abs().mean()) for c in changed]
    assert distances == sorted(distances)
    assert distances[0] > 0.5  # of 255


def test_mean_errors_are_by_corruption_and_severity() -> None:
    under = conditions(3)
    wrong = torch.zeros(len(under), dtype=torch.bool)
    wrong[(under[:, 0] == 4) & (under[:, 1] == 2)] = True
    order = torch.randperm(len(under), generator=torch.Generator().manual_seed(0))

    rates = error_rates(wrong[order], under[order])

    assert rates.sum() == rates[4, 2] == 1


def test_mce_is_as_it_is_published() -> None:
    """AlexNet itself has 100 %, by definition; the mean error divides by nothing."""
    errors = torch.tensor(list(ALEXNET.values())).double()[:, None].expand(-1, SEVERITIES)

    assert corruption_errors(errors, of_alexnet=True).tolist() == pytest.approx([100] * 15)
    plain = corruption_errors(errors, of_alexnet=False)
    assert plain.tolist() == pytest.approx([100 * value for value in ALEXNET.values()])


def test_scores_are_those_of_all_images(tmp_path: Path) -> None:
    task = made("cifar10_c", tmp_path, classes=4)
    split, model = task.load("test", tmp_path, 0), task.build("resnet8")
    predictions = predict(task, model, load_method(find("method", "none"))(), split)

    scores = task.score(predictions, split.targets)

    images = split.read(torch.arange(len(split)), None)
    with torch.no_grad():
        logits = torch.cat([model.eval()(part).out for part in images.split(150)])
    classes = split.targets[:, 0]
    wrong = (logits.argmax(1) != classes).double()
    assert scores["mce"].value == pytest.approx(100 * float(wrong.mean()))
    assert scores["top1"].value == pytest.approx(100 - scores["mce"].value)
    assert scores["mce"].by_class is not None
    manual_steps = 100 * wrong.view(15, -1).mean(1)  # as many under each corruption
    assert list(scores["mce"].by_class) == pytest.approx(manual_steps.tolist())
    assert scores["cross_entropy"].value == pytest.approx(float(F.cross_entropy(logits, classes)))
    theirs = multiclass_calibration_error(logits.softmax(1), classes, 4, n_bins=15)
    assert scores["calibration_error"].value == pytest.approx(100 * float(theirs), abs=1e-3)


def test_arrays_are_read_as_published(tmp_path: Path) -> None:
    made("cifar100_c", tmp_path, classes=3)
    folder = tmp_path / "CIFAR-100-C"
    task = make_task(find("task", "cifar100_c"), {}, {"classes": 2})

    split = task.load("test", tmp_path, 0)

    assert isinstance(split, ResidentSplit)
    labels = np.load(folder / "labels.npy")
    assert len(split) == 15 * 5 * 4  # of two classes of three
    for item in (0, 7, 19, 20, 133, 299):
        label, corruption, severity = split.targets[item].tolist()
        rows = np.load(folder / f"{CORRUPTIONS[corruption]}.npy")
        level = np.arange(len(labels)) // (len(labels) // SEVERITIES)
        (places,) = np.nonzero((labels == label) & (level == severity))
        found = [torch.from_numpy(rows[place]).permute(2, 0, 1) for place in places]
        assert any(torch.equal(split.images[item], image) for image in found)


def test_folders_are_read_as_published(tmp_path: Path) -> None:
    task = made("imagenet_c", tmp_path, classes=3, side=40)
    split = task.load("test", tmp_path, 0)

    assert len(split) == 15 * 5 * 6
    for item in (0, 5, 6, 200, 449):
        label, corruption, severity = split.targets[item].tolist()
        path = split.path(item)
        assert path.parts[-4:-1] == (CORRUPTIONS[corruption], str(severity + 1), f"n{label:08}")
        assert torch.equal(split.fetch(torch.tensor([item]), None)[0], read_image(path))


def test_images_of_224_pixels_are_resized_for_smaller_models(tmp_path: Path) -> None:
    made("imagenet_c", tmp_path, classes=3, side=40)
    task = make_task(find("task", "imagenet_c"), {}, {"classes": 3, "side": 32})

    assert task.load("test", tmp_path, 0).read(torch.arange(2), None).shape == (2, 3, 32, 32)


@pytest.mark.parametrize(
    ("damage", "said"),
    [(lambda f: (f / "fog.npy").unlink(), r"fog.npy must be an array written by numpy.save"),
     (lambda f: (f / "fog.npy").write_bytes(b"no"), r"fog.npy must be an array"),
     (lambda f: np.save(f / "fog.npy", np.zeros((15, 32, 32, 3), np.uint8)), r"hold 20 images"),
     (lambda f: np.save(f / "fog.npy", np.zeros((20, 32, 32, 3), np.float32)), r"must hold bytes"),
     (lambda f: np.save(f / "labels.npy", np.arange(20, dtype=np.uint8)), r"the same labels")],
)  # fmt: skip
def test_arrays_of_another_form_are_refused(
    tmp_path: Path, damage: Callable[[Path], Any], said: str
) -> None:
    task = made("cifar10_c", tmp_path, classes=2)
    damage(tmp_path / "CIFAR-10-C")

    with pytest.raises(DataError, match=said):
        task.load("test", tmp_path, 0)


def test_a_folder_with_fewer_images_is_refused(tmp_path: Path) -> None:
    task = made("imagenet_c", tmp_path, classes=2, side=40)
    next((tmp_path / "frost/3/n00000001").iterdir()).unlink()

    with pytest.raises(DataError, match=r"frost/3 must hold as many images of every class"):
        task.load("test", tmp_path, 0)


def test_verifying_compares_arrays_with_the_published_ones(tmp_path: Path) -> None:
    findings = list(made("cifar10_c", tmp_path, classes=2).verify(tmp_path))

    assert len(findings) == 15
    assert not any(finding.ok for finding in findings)


@pytest.mark.full
def test_made_data_is_scored_where_it_lies(mixbench: Run, tmp_path: Path) -> None:
    folder = tmp_path / "made"
    amount = ("--classes", "3", "--test", "2")
    made = mixbench("data", "make", "cifar10_c", *amount, "--to", str(folder))
    assert made.returncode == 0, made.stderr
    command = made.stdout.split("mixbench ")[1].split()
    assert command[-2:] == ["--data", str(folder)]

    done = mixbench(*command, "--set", "cifar10.epochs=1")

    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "store").glob("records/cifar10_c/none/*.json")
    record = json.loads(path.read_text())
    mce = next(m for m in record["metrics"] if m["name"] == "mce")
    assert set(mce["by_class"]) == set(CORRUPTIONS)
    assert mce["n"] == 15 * 5 * 6
    assert record["data"]["origin"] == "synthetic"


@pytest.mark.full
def test_given_weights_need_no_data_to_train_on(
    mixbench: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIXBENCH_DATA", str(tmp_path / "nowhere"))
    (tmp_path / "c").mkdir()
    task = made("cifar10_c", tmp_path / "c", classes=3)
    torch.save(task.build("resnet8").state_dict(), tmp_path / "given.pth")
    options = ["-m", "mixup", "-t", "cifar10_c", "--set", "cifar10.classes=3", "--model", "resnet8"]
    options += ["--data", str(tmp_path / "c")]

    without = mixbench("run", *options)
    done = mixbench("run", *options, "--init", str(tmp_path / "given.pth"), "--json")

    assert without.returncode == 1
    assert "cifar10_c evaluates the models of cifar10, unless --init" in without.stderr
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "store").glob("records/cifar10_c/mixup/*.json")
    record = json.loads(path.read_text())
    assert [stage["kind"] for stage in record["stages"]] == ["evaluate"]
    assert record["cost"]["images"] == 0
    assert record["cost"]["parameters"] > 70_000


def test_conditions_are_in_the_order_of_the_folders() -> None:
    expected = [list(pair) for pair in product(range(15), range(5)) for _ in range(2)]

    assert conditions(2).tolist() == expected


@pytest.mark.parametrize("name", list(computed.KINDS))
def test_a_computed_corruption_repeats_and_grows_with_its_severity(name: str) -> None:
    kind = [*computed.KINDS].index(name)
    image = smooth_image()

    changed = [computed.corrupted(image, kind, severity, item=7) for severity in range(SEVERITIES)]

    assert torch.equal(changed[2], computed.corrupted(image, kind, 2, item=7))
    distances = [float((c.float() - image.float()).abs().mean()) for c in changed]
    assert distances == sorted(distances)
    assert distances[0] > 0
    drawn = name.endswith("noise")
    assert torch.equal(changed[2], computed.corrupted(image, kind, 2, item=8)) != drawn


def smooth_image() -> torch.Tensor:
    rng = torch.Generator().manual_seed(4)
    smooth = F.interpolate(torch.rand(1, 3, 5, 5, generator=rng), (30, 34), mode="bicubic")
    return (255 * (0.2 + 0.6 * smooth[0]).clamp(0, 1)).byte()


def test_brightness_is_that_of_hue_saturation_and_value() -> None:
    image = torch.rand(3, 6, 5, generator=torch.Generator().manual_seed(1))
    expected = np.empty((6, 5, 3))
    for place in product(range(6), range(5)):
        hue, saturation, value = colorsys.rgb_to_hsv(*image[:, place[0], place[1]].tolist())
        expected[place] = colorsys.hsv_to_rgb(hue, saturation, min(value + 0.1, 1))

    found = computed.brightness(image, 0.1, torch.Generator())

    np.testing.assert_allclose(found.permute(1, 2, 0), expected, atol=1e-5)


def test_a_blurred_point_is_the_disk() -> None:
    """A radius below one leaves the point; its edge is smoothed over its neighbours."""
    image = torch.zeros(3, 21, 21)
    image[:, 10, 10] = 1

    found = computed.defocus_blur(image, (0.3, 0.4), torch.Generator())

    side = math.exp(-1 / (2 * 0.4**2))
    assert found[0, 10, 10] == pytest.approx(1 / (1 + 2 * side) ** 2)
    assert found[0, 10, 11] == pytest.approx(side / (1 + 2 * side) ** 2)
    wide = computed.defocus_blur(image, (1.5, 0.1), torch.Generator())
    assert wide[0, 9:12, 9:12].flatten().tolist() == pytest.approx([1 / 9] * 9)


def test_computed_corruptions_do_not_depend_on_the_batch(tmp_path: Path) -> None:
    task = made("cifar10_corrupted", tmp_path, classes=3)
    split = task.load("test", tmp_path, 0)

    assert len(split) == 6 * 8 * SEVERITIES
    everything = split.fetch(torch.arange(len(split)), None)
    index = torch.tensor([101, 3, 77])
    assert torch.equal(split.fetch(index, None), everything[index])
    assert split.targets[77].tolist() == [int(split.targets[77 % 6, 0]), 77 // 30, 77 // 6 % 5]
    names = task.class_names(tmp_path)
    scores = task.score(
        {"corrupted": split.targets[:, 0].int(), "confidence": torch.ones(len(split)),
         "cross_entropy": torch.zeros(len(split))}, split.targets,
    )  # fmt: skip
    assert scores["corruption_error"].value == 0
    assert len(names) == len(scores["corruption_error"].by_class or ()) == 8


def test_the_number_of_computed_images_is_known_without_data() -> None:
    card = find("task", "cifar10_corrupted")

    assert card.declared.test_items_per_image == len(computed.KINDS) * SEVERITIES
    assert num_test_items(card, {"images": 1000}) == 40_000
    assert num_test_items(card, {"images": 0}) == 400_000
    assert num_test_items(find("task", "cifar10"), {}) == 10_000
