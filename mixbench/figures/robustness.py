"""Figures and tables of accuracy on attacked and on corrupted images."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from mixbench.declare import CORRUPTIONS
from mixbench.declare.attacks import Attack, attacks_of, eps_text
from mixbench.figures.predictions import bare, shown_of
from mixbench.figures.style import INK, colour, shapes
from mixbench.records.schema import Record
from mixbench.storage.store import Store
from mixbench.vision.robustness.adversarial import Attacked, among_correct
from mixbench.vision.robustness.attacks import PixelModel, attacked, open_to_attacks
from mixbench.vision.robustness.corruptions import SEVERITIES, error_rates
from mixbench.worker.job import data_folder, give_weights, make_task, revive

SearchResult = Mapping[str, Mapping[str, Tensor]]  # predictions and targets by method
RIGHT, MISTAKEN = "#2f855a", "#c05621"  # text colours of predicted classes
PANELS = (
    ("pixel", "accuracy", "FGSM in pixels: all images"),
    ("pixel", "accuracy_of_correct", "FGSM in pixels: images correct when clean"),
    ("normalized", "accuracy", "FGSM in normalised input: all images"),
)


def under_attacks(record: Record, found: SearchResult) -> pd.DataFrame:
    """Return the accuracies of all methods under all attacks and without an attack (eps 0).

    Parameters
    ----------
    record
        Record of any of the cells, which all have the same attacks.
    found
        Predictions and targets of each method, by its name.

    Returns
    -------
    rows
        Table with the columns method, attack, space, steps, eps, eps_text, accuracy (%) and
        accuracy_of_correct (%).
    """
    asked = record.task.parameters
    names = ("eps", "eps_space", "pgd_eps", "pgd_steps")
    attacks = attacks_of(*(asked[name] for name in names))
    clean = (Attack("fgsm", 0.0, space) for space in ("pixel", "normalized"))
    columns = [*((0, attack) for attack in clean), *enumerate(attacks, 1)]
    rows = []
    for method, tensors in found.items():
        right = tensors["attacked"] == tensors["targets"][:, None]
        rows += [_row(method, right, column, attack) for column, attack in columns]
    return pd.DataFrame(rows)


def _row(method: str, right: Tensor, column: int, attack: Attack) -> dict[str, str | float]:
    """Return the table row of one method under one attack, whose results are in `column`."""
    clean = right[:, 0]
    among = among_correct(right[:, column], clean)
    return {
        "method": method,
        "attack": attack.kind,
        "space": attack.space,
        "steps": attack.steps,
        "eps": attack.eps,
        "eps_text": eps_text(attack.eps),
        "accuracy": 100 * float(right[:, column].double().mean()),
        "accuracy_of_correct": 100 * float(among.double().mean()),
    }


def attack_curves(rows: pd.DataFrame) -> Figure:
    """Return curves of every method's accuracy over eps, one panel per attack space and subset."""
    figure = Figure(figsize=(13, 4), layout="constrained")
    marked = shapes(map(str, rows["method"].unique()))
    panels = zip(figure.subplots(1, len(PANELS), sharey=True), PANELS, strict=True)
    for axes, (space, column, title) in panels:
        there = rows[rows["space"] == space]
        ticks = there.drop_duplicates("eps").sort_values("eps")
        places = {eps: place for place, eps in enumerate(ticks["eps"])}
        for method, own in there.groupby("method", sort=False):
            fgsm = own[own["attack"] == "fgsm"].sort_values("eps")
            (line,) = axes.plot(
                fgsm["eps"].map(places), fgsm[column], "".join(marked[str(method)]), ms=3, lw=1.5,
                label=method, color=colour(str(method)), clip_on=False,
            )  # fmt: skip
            pgd = own[own["attack"] == "pgd"]
            axes.plot(pgd["eps"].map(places), pgd[column], "x", ms=7, mew=2, color=line.get_color())
        _finish(axes, "eps", title)
        axes.set_xticks(range(len(ticks)), ticks["eps_text"])
        if (there["attack"] == "pgd").any():
            steps = there.loc[there["attack"] == "pgd", "steps"].iloc[0]
            axes.plot([], [], "x", ms=7, mew=2, color=INK, label=f"PGD, {steps} steps")
    figure.axes[0].set_ylabel("accuracy (%)")
    _legend(figure)
    return figure


def _legend(figure: Figure) -> None:
    """Put one legend of all panels beside them; the first panel has all names."""
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right upper", frameon=False, fontsize=8)


def _finish(axes: Axes, label: str, title: str) -> None:
    axes.set(xlabel=label)
    axes.set_title(title, loc="left", fontsize=10, color=INK)
    axes.spines[["top", "right"]].set_visible(False)


def under_corruptions(found: SearchResult, kinds: Sequence[str] = CORRUPTIONS) -> pd.DataFrame:
    """Return a table of accuracies with the columns method, corruption, severity, accuracy (%)."""
    rows = []
    for method, tensors in found.items():
        targets = tensors["targets"]
        wrong = tensors["corrupted"] != targets[:, 0]
        rates = error_rates(wrong, targets[:, 1:], len(kinds))
        rows += [
            {
                "method": method,
                "corruption": kinds[corruption],
                "severity": severity + 1,
                "accuracy": 100 * (1 - float(rates[corruption, severity])),
            }
            for corruption in range(len(kinds))
            for severity in range(SEVERITIES)
        ]
    return pd.DataFrame(rows)


def corruption_curves(rows: pd.DataFrame) -> Figure:
    """Return plots of every method's accuracy by severity and by corruption."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.6), sharey=True)
    marked = shapes(map(str, rows["method"].unique()))
    for method, own in rows.groupby("method", sort=False):
        by_severity = own.groupby("severity")["accuracy"].mean()
        marker, line = marked[str(method)]
        shown: Any = {"label": method, "color": colour(str(method)), "marker": marker}
        left.plot(by_severity.index, by_severity, ls=line, ms=3, lw=1.5, **shown)
        by_corruption = own.groupby("corruption", sort=False)["accuracy"].mean()
        right.plot(range(len(by_corruption)), by_corruption, ls="", ms=5, **shown)
    _finish(left, "severity", "mean over corruptions")
    left.set_xticks(range(1, SEVERITIES + 1))
    left.set_ylabel("accuracy (%)")
    _legend(figure)
    _finish(right, "", "mean over severities")
    names = [str(name).replace("_", " ") for name in rows["corruption"].unique()]
    right.set_xticks(range(len(names)), names, rotation=40, ha="right", fontsize=8)
    right.grid(axis="x", lw=0.4, alpha=0.5)
    return figure


def adversaries(store: Store, record: Record) -> Figure:
    """Return some test images under FGSM in pixel space on a cell's model, at every eps.

    Below each image is the class that the model predicts, with a tick in green if it is correct,
    and a cross otherwise.
    """
    key = next(stage.key for stage in record.stages if stage.kind == "evaluate")
    stage = store.manifest(key).spec.stage
    task, folder = make_task(stage), data_folder(stage, store)
    assert isinstance(task, Attacked)  # only this task predicts "attacked"
    split = task.load("test", folder, record.seed)
    index = shown_of(len(split))
    images, classes = split.read(index, None), split.targets[index]
    model, method = revive(stage, torch.device("cpu"))
    give_weights(stage, store, (model, method))
    seen = PixelModel(model.eval(), method.eval().predict, task.normalization)
    made = {"clean": images}
    with open_to_attacks(model):
        for attack in sorted(task.attacks, key=lambda a: a.eps):
            if attack.kind == "fgsm" and attack.space == "pixel":
                made[f"eps {eps_text(attack.eps)}"] = attacked(seen, images, classes, attack)
    return _draw(made, seen, classes, task.class_names(folder))


def _draw(
    made: Mapping[str, Tensor], model: PixelModel, classes: Tensor, names: Sequence[str]
) -> Figure:
    """Return a grid of images with one row per image and one column per eps."""
    figure = Figure(figsize=(1.3 * len(made), 1.55 * len(classes) + 0.3), layout="constrained")
    grid = figure.subplots(len(classes), len(made), squeeze=False)
    for column, (title, images) in enumerate(made.items()):
        grid[0, column].set_title(title, fontsize=9, color=INK)
        with torch.no_grad():
            taken = model(images).argmax(1)
        for row, axes in enumerate(grid[:, column]):
            right = bool(taken[row] == classes[row])
            axes.imshow(images[row].permute(1, 2, 0).squeeze().numpy(), cmap="gray", vmin=0, vmax=1)
            bare(axes)
            said = f"{'✓' if right else '✗'} {names[taken[row]]}"
            axes.set_xlabel(said, fontsize=7, color=RIGHT if right else MISTAKEN)
    return figure
