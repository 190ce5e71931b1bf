"""Figure of the boxes that methods detect, next to the true boxes."""

from collections.abc import Mapping, Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from mixbench.figures.predictions import (
    FOUND,
    TRUE,
    WRONG,
    Picture,
    bare,
    names_of,
    pictures_of,
    shown_of,
)
from mixbench.figures.style import INK
from mixbench.records.schema import Record
from mixbench.storage.store import Store
from mixbench.vision.box_iou import box_iou
from mixbench.vision.detection.boxes import CLASS, DIFFICULT, NOTHING, SCORE, fitted_size
from mixbench.vision.detection.voc_ap import OVERLAP

SURE = 0.5  # minimum score of a detected box that is shown


def detections(store: Store, record: Record, found: Mapping[str, Mapping[str, Tensor]]) -> Figure:
    """Return some test images with true boxes and every method's detections of high score.

    True boxes of difficult objects are dashed. Detected boxes are green if their IoU with an object
    of their class is larger than 0.5, and orange otherwise.

    Parameters
    ----------
    store
        Store with the artifacts of the cells.
    record
        Record of any of the cells, which all have the same images.
    found
        Predictions and targets of each method, by its name.
    """
    targets = next(iter(found.values()))["targets"]
    index, names = shown_of(len(targets)), names_of(store, record)
    pictures = pictures_of(store, record, index)
    columns = ["true boxes", *found]
    figure = Figure(figsize=(2.3 * len(columns), 1.9 * len(index) + 0.3), layout="constrained")
    axes = figure.subplots(len(index), len(columns), squeeze=False)
    for row, (item, picture) in enumerate(zip(index.tolist(), pictures, strict=True)):
        _draw_truth(axes[row, 0], picture, targets[item], names)
        for column, cell in enumerate(found.values(), 1):
            _draw_found(axes[row, column], picture, targets[item], cell["boxes"][item], names)
    for panel, name in zip(axes[0], columns, strict=True):
        panel.set_title(name, fontsize=9, color=INK)
    return figure


def _show(axes: Axes, picture: Picture, target: Tensor) -> None:
    """Show an image without its grey padding, in its own pixel coordinates counted from 1."""
    width, height = (int(value) for value in target[0, 2:4])
    high, wide = fitted_size(width, height, len(picture))
    axes.imshow(picture[:high, :wide], extent=(0.5, width + 0.5, height + 0.5, 0.5))
    bare(axes)


def _draw_truth(axes: Axes, picture: Picture, target: Tensor, names: Sequence[str]) -> None:
    _show(axes, picture, target)
    for row in target[target[:, CLASS] != NOTHING]:
        line = "--" if row[DIFFICULT] else "-"
        _frame(axes, row, names[int(row[CLASS])], TRUE, line)


def _draw_found(
    axes: Axes, picture: Picture, target: Tensor, found: Tensor, names: Sequence[str]
) -> None:
    _show(axes, picture, target)
    sure = found[(found[:, CLASS] != NOTHING) & (found[:, SCORE] >= SURE)]
    same = sure[:, None, CLASS] == target[None, :, CLASS]
    shares = torch.from_numpy(box_iou(sure[:, :4].numpy(), target[:, :4].numpy()))
    right = (torch.where(same, shares, 0) > OVERLAP).any(1)
    if not len(sure):
        axes.set_xlabel(f"no box of score {SURE} or more", fontsize=7, color=INK)
    for row, is_right in reversed(list(zip(sure, right.tolist(), strict=True))):
        text = f"{names[int(row[CLASS])]} {100 * row[SCORE]:.0f} %"
        _frame(axes, row, text, FOUND if is_right else WRONG, "-")


def _frame(axes: Axes, row: Tensor, text: str, colour: str, line: str) -> None:
    left, top, right, bottom = row[:4].tolist()
    corner, size = (left - 0.5, top - 0.5), (right - left + 1, bottom - top + 1)
    axes.add_patch(
        Rectangle(corner, *size, fill=False, edgecolor=colour, linewidth=1.4, linestyle=line)
    )
    box = {"facecolor": colour, "edgecolor": "none", "pad": 0.8, "alpha": 0.85}
    ink = "white" if colour == TRUE else INK
    axes.text(*corner, text, fontsize=6.5, color=ink, va="bottom", bbox=box, clip_on=True)
