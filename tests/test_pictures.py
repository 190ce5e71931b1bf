"""Pictures of predictions show what was predicted, by every method, of the same images."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mixbench.figures import captions as of_captions
from mixbench.figures import detections as of_detections
from mixbench.figures import robustness as of_robustness
from mixbench.figures.predictions import FOUND, WRONG, shown_of
from mixbench.storage.store import Store
from mixbench.vision.robustness.corruptions import conditions

WORDS = ["<end>", "<start>", "<unknown>", "a", "cat", "dog"]
CLASSES = ["cat", "dog"]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store whose test images are grey squares of 40 pixels."""
    for module, names in ((of_captions, WORDS), (of_detections, CLASSES)):
        monkeypatch.setattr(module, "names_of", lambda *_, names=names: names)
        monkeypatch.setattr(
            module, "pictures_of", lambda _s, _r, index: [np.full((40, 40, 3), 0.5)] * len(index)
        )
    return Store(tmp_path)


def texts(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.texts]


def points(line: Any) -> list[float]:
    return [float(value) for value in line.get_ydata()]


def boxes(axes: Any) -> list[tuple[tuple[float, ...], str]]:
    """Return every box, as x, y, width and height, with its colour."""
    return [
        ((*patch.get_xy(), patch.get_width(), patch.get_height()), to_hex(patch.get_edgecolor()))
        for patch in axes.patches
        if isinstance(patch, Rectangle)
    ]


def test_images_are_evenly_spread() -> None:
    assert shown_of(11).tolist() == [0, 2, 4, 6, 8, 10]
    assert shown_of(2).tolist() == [0, 1]


def test_captions_stand_beside_what_people_said(store: Store, make_record: Any) -> None:
    targets = torch.tensor([[[3, 4, 0], [4, 0, 0]], [[3, 5, 0], [0, 0, 0]]])
    told = {
        "none": {"captions": torch.tensor([[3, 4], [4, 0]]), "targets": targets},
        "cutmix": {"captions": torch.tensor([[5, 0], [0, 0]]), "targets": targets},
    }

    figure = of_captions.captions(store, make_record(), told)

    lines = [texts(axes) for axes in figure.axes if axes.texts]
    people = ["reference", "a cat", "reference", "cat"]
    assert lines[0] == [*people, "none", "a cat", "cutmix", "dog"]
    assert lines[1] == ["reference", "a dog", "none", "cat", "cutmix", ""]


@pytest.fixture
def figure(store: Store, make_record: Any) -> Figure:
    frame = [1.0, 1, 80, 60, -1, 0]
    targets = torch.tensor([[frame, [11, 11, 30, 40, 0, 0], [50, 5, 60, 9, 1, 1]]])
    found = torch.tensor([[
        [11, 11, 30, 38, 0, 0.9], [12, 11, 30, 40, 1, 0.8], [1, 1, 9, 9, 0, 0.2], [-1] * 6,
    ]])  # fmt: skip
    cells = {"none": {"boxes": found, "targets": targets}}
    return of_detections.detections(store, make_record(), cells)


def test_found_boxes_are_green_where_they_are_right(figure: Figure) -> None:
    found = figure.axes[1]

    assert boxes(found) == [
        ((11.5, 10.5, 19, 30), WRONG),  # another class than the object's
        ((10.5, 10.5, 20, 28), FOUND),
    ]
    assert texts(found) == ["dog 80 %", "cat 90 %"]  # the likeliest on top; no unlikely one


def test_true_boxes_are_dashed_where_they_are_difficult(figure: Figure) -> None:
    true = figure.axes[0]

    assert texts(true) == ["cat", "dog"]
    assert [patch.get_linestyle() for patch in true.patches] == ["-", "--"]
    assert (true.get_xlim(), true.get_ylim()) == ((0.5, 80.5), (60.5, 0.5))


def attacks_record() -> Any:
    parameters = {"eps": [0.1, 8 / 255], "eps_space": "pixel", "pgd_eps": [8 / 255], "pgd_steps": 7}
    return SimpleNamespace(task=SimpleNamespace(parameters=parameters))


def under_attack() -> dict[str, dict[str, torch.Tensor]]:
    """Return four images: clean, under 0.1, 8/255, 0.1 normalised, and PGD."""
    right = torch.tensor([[0, 1, 2, 3], [9, 9, 9, 3], [0, 9, 2, 3], [0, 9, 9, 3], [9] * 4]).T
    worse = torch.where(torch.arange(5) > 0, 9, right)
    targets = torch.arange(4)
    return {"a": {"attacked": right, "targets": targets},
            "b": {"attacked": worse, "targets": targets}}  # fmt: skip


def test_the_curve_over_eps_is_what_was_predicted() -> None:
    rows = of_robustness.under_attacks(attacks_record(), under_attack())
    axes = of_robustness.attack_curves(rows).axes[0]

    drawn = {line.get_label(): points(line) for line in axes.lines[:3:2]}
    assert drawn == {"a": [100, 75, 25], "b": [100, 0, 0]}
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0", "8/255", "0.1"]
    assert points(axes.lines[1]) == [0]  # PGD's mark


def test_the_curve_is_also_data() -> None:
    rows = of_robustness.under_attacks(attacks_record(), under_attack())

    own = rows[(rows["method"] == "a") & (rows["space"] == "normalized")]
    assert list(own["eps"]) == [0, 0.1]
    assert list(own["accuracy"]) == [100, 50]
    assert len(rows) == 2 * (2 + 2 + 1 + 1)


def test_corruption_curves_are_what_was_predicted() -> None:
    under = conditions(2)
    targets = torch.cat([torch.zeros(len(under), 1, dtype=torch.int64), under], 1)
    wrong = (under[:, 0] == 3) | (under[:, 1] == 4)
    rows = of_robustness.under_corruptions({"a": {"corrupted": wrong.int(), "targets": targets}})

    left, right = of_robustness.corruption_curves(rows).axes

    assert points(left.lines[0]) == pytest.approx([1400 / 15] * 4 + [0])
    assert points(right.lines[0]) == pytest.approx([80] * 3 + [0] + [80] * 11)
