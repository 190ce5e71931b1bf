"""PxAP: its definition derived again, and the masks of CUB."""

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from mixbench.contract import Task
from mixbench.contract.loading import load_task
from mixbench.declare import PIXEL_PRECISION
from mixbench.errors import BadParameter, DataError
from mixbench.figures.localization import located_of
from mixbench.registry.units import find
from mixbench.streams import generator
from mixbench.vision.images.decode import read_image
from mixbench.vision.localization.pixel_precision import (
    packed,
    pixel_average_precision,
    unpacked,
)
from mixbench.vision.localization.task import truths_of

SIDE = 224


def masks_and_scores() -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    rng = np.random.default_rng(0)
    masks = rng.random((3, SIDE, SIDE)) < np.array([0.1, 0.5, 0.02])[:, None, None]
    scores = (0.6 * rng.random(masks.shape) + 0.4 * masks).round(3)
    scores[:, :2] = 1  # the highest score has a bin of its own
    return masks, scores


def test_pxap_is_the_sum_of_precision_times_gain_of_recall_over_thresholds() -> None:
    masks, scores = masks_and_scores()

    found = pixel_average_precision(scores, torch.stack([packed(mask) for mask in masks]))

    expected = before = 0.0
    for threshold in [1.0, *np.arange(0, 1, 0.001)[::-1]]:
        above = scores >= threshold
        recall = (above & masks).sum() / masks.sum()
        precision = (above & masks).sum() / max(above.sum(), 1)
        expected += 100 * precision * (recall - before)
        before = recall
    assert found == pytest.approx(expected, abs=1e-9)


def test_perfect_maps_have_100_and_constant_ones_the_share_of_the_objects() -> None:
    """As evaluation_test.py:330-397 of wsolevaluation checks."""
    masks, _ = masks_and_scores()
    words = torch.stack([packed(mask) for mask in masks])

    assert pixel_average_precision(masks.astype(float), words) == 100
    constant = pixel_average_precision(np.full(masks.shape, 0.3), words)
    assert constant == pytest.approx(100 * masks.mean())
    with pytest.raises(DataError, match="All masks are empty"):
        pixel_average_precision(masks.astype(float), torch.zeros_like(words))


def test_masks_are_scaled_to_the_upper_left_pixel_and_packed() -> None:
    mask = np.random.default_rng(1).random((300, 451)) < 0.5

    large = unpacked(packed(mask)[None])[0]

    for row, column in ((0, 0), (1, 1), (100, 37), (223, 223)):
        assert large[row, column] == mask[int(row * 300 / SIDE), int(column * 451 / SIDE)]
    assert large.mean() == pytest.approx(0.5, abs=0.01)


def task_with_masks(**values: Any) -> Task:
    options = {"classes": 3, "side": 40, "holdout": 0.2, "weights": "random", "variant": "masks"}
    make: Any = load_task(find("task", "cub_wsol"))
    task: Task = make(**{**options, **values})
    return task


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    task = task_with_masks()
    task.synthesize(tmp_path, replace(task.synthetic, train=6, test=4))
    return tmp_path


def test_masks_of_birds_follow_their_boxes(folder: Path) -> None:
    plain, task = task_with_masks(variant="boxes"), task_with_masks()
    boxes = plain.load("test", folder, 0).targets

    targets = task.load("test", folder, 0).targets

    truths = truths_of(targets)
    assert torch.equal(targets[:, : boxes.shape[1]], boxes)
    assert truths_of(boxes).masks.numel() == 0
    np.testing.assert_array_equal(truths.boxes, truths_of(boxes).boxes)
    for mask, (box,) in zip(unpacked(truths.masks), truths.boxes, strict=True):
        (top, left), (bottom, right) = (at(np.argwhere(mask), axis=0) for at in (np.min, np.max))
        assert np.abs(np.array([left, top, right, bottom]) - box).max() <= 4
    validation = task.load("validation", folder, 0).targets
    assert validation.shape[1] == targets.shape[1]


def test_maps_that_are_the_masks_are_perfect(folder: Path) -> None:
    task = task_with_masks()
    targets = task.load("test", folder, 0).targets
    maps = torch.from_numpy(unpacked(truths_of(targets).masks)).float()
    logits = torch.randn(len(targets), 3, generator=generator(0, "synthetic"))

    scores = task.score({"outputs": logits, "maps": maps}, targets)

    assert [*scores] == [metric.name for metric in PIXEL_PRECISION]
    assert scores["pxap"].value == pytest.approx(100, abs=0.1)
    assert located_of({"targets": targets, "maps": maps}).truths.shape == (12, 1, 4)


def test_a_pixel_belongs_to_the_bird_if_more_than_half_say_so(folder: Path) -> None:
    path = next((folder / "segmentations").glob("*/*.png"))
    size = read_image(path).shape[1:]
    shares = np.full(size, 102, np.uint8)
    shares[:, : size[1] // 2] = 153
    Image.fromarray(shares).save(path)
    files = importlib.import_module("mixbench.tasks.cub_wsol.files")
    name = f"{path.parent.name}/{path.stem}.jpg"

    words = files.read_masks(path.parents[1], folder / "CUB_200_2011" / "images", [name])

    mask = unpacked(words)[0]
    assert mask[:, :112].all()
    assert not mask[:, 112:].any()


def test_masks_that_are_missing_or_of_another_size_are_named(folder: Path) -> None:
    task = task_with_masks()
    path = sorted((folder / "segmentations").glob("*/*.png"))[-1]
    Image.fromarray(np.zeros((10, 20), np.uint8)).save(path)
    with pytest.raises(DataError, match=r"The mask .* must have the size of its image"):
        task.load("test", folder, 0)
    path.unlink()
    with pytest.raises(DataError, match=r"The image .*segmentations.* is missing"):
        task.load("test", folder, 0)


def test_masks_without_a_bird_are_named(folder: Path) -> None:
    """Masks of 0 and 1 hold nothing above half of 255."""
    path = next((folder / "segmentations").glob("*/*.png"))
    Image.fromarray(np.ones(read_image(path).shape[1:], np.uint8)).save(path)
    files = importlib.import_module("mixbench.tasks.cub_wsol.files")
    name = f"{path.parent.name}/{path.stem}.jpg"
    with pytest.raises(DataError, match=r"must have pixels of the bird.*largest value is 1"):
        files.read_masks(path.parents[1], folder / "CUB_200_2011" / "images", [name])


def test_cubv2_has_no_masks(tmp_path: Path) -> None:
    with pytest.raises(BadParameter, match="CUBV2 has no masks"):
        task_with_masks(cubv2=str(tmp_path))
