"""Figures of a search's history and result (Figures 4 and 7-9 of the PatchMix paper)."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mixbench.figures.style import INK, PALETTE, QUIET
from mixbench.search.genetic import Draws, Fitness, Individual, Settings, mutate
from mixbench.search.result import result_of
from mixbench.search.space import Space

KEPT, DROPPED = PALETTE[2], PALETTE[1]
Result = Mapping[str, Any]
SHOWN = 4  # pairs named at each marked generation
MUTATIONS = ("flip tails", "transpose", "flip heads", "random tails")


def evolution(result: Result) -> Figure | None:
    """Return the fitness over the generations with the pairs gained and lost.

    Return None if the result has no history.
    """
    history = result["history"]
    if not history:
        return None
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    generations = [row["generation"] for row in history]
    axes.plot(generations, [r["mean"] for r in history], color=QUIET, label="population mean")
    axes.plot(
        generations, [r["best_of_generation"] for r in history], color=INK, lw=0.8, alpha=0.6,
        label="best of the generation",
    )  # fmt: skip
    axes.plot(generations, [r["best"] for r in history], color=INK, lw=2, label="best so far")
    better = {"min": "lower", "max": "higher"}[result["goal"]]
    axes.set(
        xlabel="generation",
        ylabel=f"{result['score']} on held-out compositions\n({better} is better)",
    )
    axes.set_title(_left_of_first(result), loc="left", fontsize=10, color=INK)
    _mark_changes(axes, result["snapshots"])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside upper left", ncols=3, frameon=False, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _left_of_first(result: Result) -> str:
    """Return how many of the found pairs the search started with."""
    left, number = result["first_pairs_left"], len(result["pairs"])
    return f"No solution at the start had more than {left} of the {number} class pairs found"


def _mark_changes(axes: Axes, snapshots: Result) -> None:
    """Mark the generations at which pairs of the best solution changed, with these pairs."""
    marks = sorted(map(int, snapshots))
    for before, after in pairwise(marks):
        old, new = ({tuple(p) for p in snapshots[str(mark)]} for mark in (before, after))
        if old == new:
            continue
        axes.axvline(after, color=QUIET, lw=0.6, ls=":")
        gained, lost = _named("+", new - old), _named("-", old - new)
        below = 0.99 - 0.035 * len(gained)
        for text, colour, top in ((gained, KEPT, 0.99), (lost, DROPPED, below)):
            axes.text(
                after, top, "\n".join(text) + " ", transform=axes.get_xaxis_transform(), ha="right",
                va="top", fontsize=7, color=colour,
            )  # fmt: skip


def _named(sign: str, pairs: set[tuple[str, ...]]) -> list[str]:
    names = [f"{sign} ({first}, {second})" for first, second in sorted(pairs)]
    more = [f"{sign} {len(names) - SHOWN} more"] if len(names) > SHOWN else []
    return [*names[:SHOWN], *more]


def combinations(result: Result) -> Figure:
    """Return the matrix of found class pairs with their masks; dark cells show the first class."""
    classes: Sequence[str] = result["classes"]
    grid, number = result["grid"], len(classes)
    picture = np.full((number * (grid + 1) + 1, number * (grid + 1) + 1), np.nan)
    for pair in result["pairs"]:
        row, column = classes.index(pair["first"]), classes.index(pair["second"])
        mask = np.array([[int(cell) for cell in line] for line in pair["mask"]])
        top, left = row * (grid + 1) + 1, column * (grid + 1) + 1
        picture[top : top + grid, left : left + grid] = mask
    size = min(2.5 + 0.42 * number, 14)
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.subplots()
    axes.imshow(picture, cmap="Greens", vmin=-0.35, vmax=1.2)
    ticks = [(grid + 1) * i + grid / 2 + 0.5 for i in range(number)]
    axes.set_xticks(ticks, classes, rotation=90 if max(map(len, classes)) > 2 else 0)
    axes.set_yticks(ticks, classes)
    axes.set(xlabel="second class (light cells)", ylabel="first class (dark cells)")
    axes.set_title(f"{len(result['pairs'])} class pairs found", loc="left", fontsize=10, color=INK)
    for edge in range(number + 1):
        axes.axhline(edge * (grid + 1), color=QUIET, lw=0.3)
        axes.axvline(edge * (grid + 1), color=QUIET, lw=0.3)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure


def mutations(result: Result, seed: int) -> Figure:
    """Return the first found masks next to the results of the search's four mutations."""
    found = result_of(result)
    space = Space(len(result["classes"]), result["grid"], len(found.ids))
    settings = Settings(
        1, 1, 0.0, 1.0, 1, 0, maximise=False, reading="text", exchanged=len(found.ids), budget=0
    )
    draws = Draws(seed, 1, space, settings)
    columns = {"found": Individual(found.ids, found.masks, Fitness())}
    for operator, name in enumerate(MUTATIONS):
        changed = columns["found"].copy()
        draws.operator[0] = operator
        mutate(space, settings, changed, draws, 0)
        columns[name] = changed
    rows = min(len(found.ids), 3)
    figure = Figure(figsize=(1.7 * len(columns), 1.6 * rows + 0.4), layout="constrained")
    grid_of_axes = figure.subplots(rows, len(columns), squeeze=False)
    for column, (name, individual) in enumerate(columns.items()):
        grid_of_axes[0, column].set_title(name, fontsize=10, color=INK)
        cells = space.bits(individual.masks).reshape(-1, space.grid, space.grid)
        for row in range(rows):
            axes = grid_of_axes[row, column]
            axes.imshow(cells[row], cmap="Greens", vmin=-0.35, vmax=1.2)
            axes.set(xticks=[], yticks=[])
            first, second = divmod(int(individual.pairs[row]), space.num_classes)
            named = f"({result['classes'][first]}, {result['classes'][second]})"
            changed_pair = individual.pairs[row] != found.ids[row]
            axes.set_xlabel(named, fontsize=8, color=KEPT if changed_pair else INK)
    return figure
