"""One generation of the genetic search on three classes (Figure 3 of the PatchMix paper)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mixbench.figures.patchmix.search import DROPPED, KEPT
from mixbench.figures.style import INK, QUIET
from mixbench.records.schema import Record
from mixbench.search.fitness import HeldOut, Scorer
from mixbench.search.genetic import Genetic, Individual, Settings
from mixbench.search.space import Space
from mixbench.search.strategies import patch_logits
from mixbench.storage.store import Store
from mixbench.worker.job import data_folder, make_task, revive, take_weights

CLASSES, POPULATION, IMAGE_PAIRS = 3, 4, 32
TITLES = (
    *("population, evaluated", "tournament: low scores win", "crossover of 1, 2 and 3, 4"),
    *("mutation of some individuals", "next population, evaluated"),
)
SETTINGS = Settings(
    POPULATION, 1, 1.0, 0.5, 2, 0, maximise=False, reading="dynamics", exchanged=1, budget=1
)


class Column(NamedTuple):
    """Individuals after one step of the cycle.

    Attributes
    ----------
    title
        Name of the step.
    individuals
        Individuals with their fitness, which is valid only for those that are evaluated.
    """

    title: str
    individuals: list[Individual]


def search_cycle(store: Store, record: Record, seed: int) -> Figure:
    """Return a figure of one cycle on the first three classes of a finished run's task.

    The model that guided the search of the run scores the individuals.

    Parameters
    ----------
    store
        Store with the artifacts of the run.
    record
        Record of a finished run whose method searches.
    seed
        Seed of the genetic search.
    """
    first = next(stage.key for stage in record.stages if stage.kind == "train" and not stage.own)
    stage = store.manifest(first).spec.stage
    task, folder = make_task(stage), data_folder(stage, store)
    model, method = revive(stage, torch.device("cpu"))
    take_weights(first, store, (model, method))
    split = task.load("validation", folder, record.seed)
    assert split.by_class is not None  # the search of the run needed it
    space = Space(CLASSES, record.method.parameters["grid"], CLASSES)
    held_out = HeldOut.of(split, record.seed, torch.device("cpu"))
    patches = patch_logits(model.eval(), method.eval())
    scorer = Scorer(space, held_out, patches, IMAGE_PAIRS, by_loss=False)
    columns = cycle(Genetic(seed, space, SETTINGS, scorer))
    return _draw(columns, space, task.class_names(folder)[:CLASSES])


def cycle(search: Genetic) -> list[Column]:
    """Run one generation and return the individuals after each of its steps."""
    search.start()
    stages = [search.population, *([x.copy() for x in stage] for stage in search.breed())]
    search.step()
    stages.append(search.population)
    return [Column(*both) for both in zip(TITLES, stages, strict=True)]


def _draw(columns: Sequence[Column], space: Space, names: Sequence[str]) -> Figure:
    figure = Figure(figsize=(2.5 * len(columns), 0.86 * POPULATION + 0.5), layout="constrained")
    figure.supxlabel(
        "Each individual: class pairs with their masks (dark cells show the first class). "
        "Percentages: patch accuracy of the guiding model. Framed: masks that the step changed.",
        fontsize=8, color=INK,
    )  # fmt: skip
    grid = figure.subplots(POPULATION, len(columns), squeeze=False)
    for number, column in enumerate(columns):
        grid[0, number].set_title(column.title, fontsize=9, color=INK)
        for row, individual in enumerate(column.individuals):
            before = columns[number - 1].individuals[row] if number in {2, 3} else None
            _show(grid[row, number], individual, before, space, names)
    return figure


def _show(
    axes: Axes,
    individual: Individual,
    before: Individual | None,
    space: Space,
    names: Sequence[str],
) -> None:
    """Draw an individual's masks side by side, with frames around those that a step changed."""
    step = space.grid + 1
    picture = np.full((space.grid, step * len(individual.pairs) - 1), np.nan)
    cells = space.bits(individual.masks).reshape(-1, space.grid, space.grid)
    axes.set_xticks([step * i + space.grid / 2 - 0.5 for i in range(len(cells))])
    labels = []
    for place, (pair, mask) in enumerate(zip(individual.pairs, cells, strict=True)):
        picture[:, step * place : step * place + space.grid] = mask
        first, second = divmod(int(pair), space.num_classes)
        labels.append(f"{names[first]}, {names[second]}")
        same = before is not None and (
            before.pairs[place] == pair and before.masks[place] == individual.masks[place]
        )
        if before is not None and not same:
            corner = (step * place - 0.5, -0.5)
            frame = Rectangle(corner, space.grid, space.grid, fill=False, ec=DROPPED, lw=1.6)
            frame.set_clip_on(False)
            axes.add_patch(frame)
    axes.imshow(picture, cmap="Greens", vmin=-0.35, vmax=1.2)
    axes.set_xticklabels(labels, fontsize=7, color=INK)
    axes.set_yticks([])
    axes.tick_params(length=0)
    if individual.fitness.valid:
        said = f"{100 * individual.fitness.values[0]:.1f} %"
        axes.set_ylabel(said, fontsize=8, color=KEPT, rotation=0, ha="right", va="center")
    for spine in axes.spines.values():
        spine.set_color(QUIET)
        spine.set_linewidth(0.5)
