"""Figures of class activation maps on the same images (Figure 6 of the paper) and accuracy."""

from collections.abc import Mapping
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from torch import Tensor

from mixbench.figures.predictions import FOUND, TRUE, Picture, pictures_of, shown_of
from mixbench.figures.style import INK, QUIET, colour, label_below, shapes
from mixbench.records.schema import Record
from mixbench.storage.store import Store
from mixbench.vision.localization.box_accuracy import (
    GRID,
    OVERLAPS,
    SIDE,
    BoxAccuracy,
    box_accuracy,
    centre_baseline,
    fitting_box,
)
from mixbench.vision.localization.components import Ints
from mixbench.vision.localization.scoring import enlarged, map_overlaps
from mixbench.vision.localization.task import truths_of


class Located(NamedTuple):
    """Class activation maps of a method's final model on the test part.

    Attributes
    ----------
    maps : (N, h, w)
        Class activation map of each image.
    truths : (N, n, 4) int64
        True boxes of each image, in the pixels of `SIDE` x `SIDE` images.
    accuracy
        Box accuracy of the maps.
    """

    maps: Tensor
    truths: Ints
    accuracy: BoxAccuracy


def located_of(tensors: Mapping[str, Tensor]) -> Located:
    """Return a cell's maps with the true boxes and the box accuracy."""
    truths = truths_of(tensors["targets"]).boxes
    maps = tensors["maps"]
    return Located(maps, truths, box_accuracy(map_overlaps(maps, truths)))


def overlays(store: Store, record: Record, located: Mapping[str, Located]) -> Figure:
    """Return test images under every method's map, with true boxes (red) and found boxes (green).

    A found box is the box of the map with the largest IoU with a true box, at the threshold at
    which most test images reach an IoU of 0.5, as in MaxBoxAcc.

    Parameters
    ----------
    store
        Store with the artifacts of the cells.
    record
        Record of any of the cells, which all have the same images.
    located
        Maps, true boxes and box accuracy of each method, by its name.
    """
    first = next(iter(located.values()))
    index = shown_of(len(first.maps))
    pictures = pictures_of(store, record, index)
    columns = len(located) + 1
    figure = Figure(figsize=(1.7 * columns, 1.75 * len(index) + 0.4), layout="constrained")
    axes = figure.subplots(len(index), columns, squeeze=False)
    for row, (item, picture) in enumerate(zip(index.tolist(), pictures, strict=True)):
        truth = first.truths[item]
        _show(axes[row, 0], picture, truth)
        for column, found in enumerate(located.values(), 1):
            (scores,) = enlarged(found.maps[item : item + 1])
            _show(axes[row, column], picture, truth)
            axes[row, column].imshow(scores, cmap="magma", alpha=0.5, vmin=0, vmax=1)
            _frame(
                axes[row, column], fitting_box(scores, truth, found.accuracy.thresholds[50]), FOUND
            )
    for column, name in enumerate(["image", *located]):
        axes[0, column].set_title(name, fontsize=8, color=INK)
    lines = [Line2D([], [], color=shade, label=name) for shade, name in (
        (TRUE, "true box"), (FOUND, "box of the map")
    )]  # fmt: skip
    figure.legend(handles=lines, loc="outside upper left", ncols=2, frameon=False, fontsize=8)
    return figure


def _show(axes: Axes, picture: Picture, truth: Ints) -> None:
    axes.imshow(picture, extent=(-0.5, SIDE - 0.5, SIDE - 0.5, -0.5))
    axes.set(xticks=[], yticks=[])
    for box in truth:
        _frame(axes, box, TRUE)


def _frame(axes: Axes, box: Ints, colour: str) -> None:
    left, top, right, bottom = box.tolist()
    size = (right - left, bottom - top)
    axes.add_patch(
        Rectangle((left, top), *size, fill=False, edgecolor=colour, linewidth=1.6, clip_on=False)
    )


def accuracy_curves(located: Mapping[str, Located]) -> Figure:
    """Return curves of the images with a fitting box over the threshold, per required IoU (%)."""
    figure = Figure(figsize=(11, 3.2 + 0.2 * (len(located) + 1)), layout="constrained")
    panels = figure.subplots(1, len(OVERLAPS), sharey=True)
    baseline = centre_baseline(next(iter(located.values())).truths)
    marked = shapes(located)
    for panel, (axes, overlap) in enumerate(zip(panels, OVERLAPS, strict=True)):
        for name, found in located.items():
            curve = found.accuracy.curves[panel]
            best = f"{name}  {curve.max():.1f}"
            axes.plot(GRID, curve, marked[name][1], lw=1.4, label=best, color=colour(name))
        flat = baseline.best[overlap]
        axes.axhline(flat, color=QUIET, ls=(0, (1, 3)), lw=1, label=f"centre baseline  {flat:.1f}")
        axes.set(xlabel="threshold of the map", xlim=(0, 1))
        axes.set_ylim(bottom=0)
        axes.set_title(f"IoU of at least {overlap} %", loc="left", fontsize=10, color=INK)
        label_below(axes)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("images with a fitting box (%)")
    return figure
