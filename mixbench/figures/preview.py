"""Preview of methods: the images that they mix from the same images, without training."""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from mixbench.contract import Backbone, Method, Sources, Step, Task, attach
from mixbench.contract.loading import load_method, located
from mixbench.declare import Need
from mixbench.errors import InvalidUnit, MixbenchError
from mixbench.figures.mixes import shares_of, short, told, unlike
from mixbench.figures.style import INK
from mixbench.registry.cards import Card
from mixbench.registry.parameters import Setting, given_to, parameters_of
from mixbench.registry.units import find
from mixbench.streams import generator
from mixbench.train.untrained import bound, prepare
from mixbench.vision.models.build import SMALL_SIDE, build

COLUMNS, TALLEST = 6, 9  # images per row, and rows above each other
TRIES = 16  # steps per method; the one that mixes most evenly is shown


class Row(NamedTuple):
    """A row of images in the preview.

    Attributes
    ----------
    name
        Name of the method that mixed the images, or ``original``.
    images : (N, C, H, W)
        Pixels of the images, in [0, 1].
    texts
        Classes of each image with their weights.
    """

    name: str
    images: Tensor
    texts: Sequence[str]


def preview(
    cards: Sequence[Card],
    task: Task,
    folder: Path,
    model: str,
    seed: int = 0,
    settings: Sequence[Setting] = (),
) -> list[Row]:
    """Return some images, and the images that each method mixes from them, with label weights.

    Each method runs a few steps, and the one that mixes most evenly is shown, because a typical
    step may mix little. Models are untrained, so what depends on a model (a search, a saliency map)
    differs from a real run.

    Parameters
    ----------
    cards
        Cards of the methods to show.
    task
        Task whose training images are mixed.
    folder
        Folder with the task's data.
    model
        Name of the model, for methods that use one.
    seed
        Seed of the choice of images and of the mixes.
    settings
        Values of parameters of the methods.

    Raises
    ------
    UnknownName
        If a method does not have a parameter of the settings.
    BadParameter
        If a value does not have the parameter's type or is out of range.
    """
    split = task.load("train", folder, seed)
    index = unlike(split.targets, COLUMNS, seed)
    images, targets = split.read(index, None), split.targets[index]
    classes = [short(name) for name in task.class_names(folder)]
    rows = [("original", images, told(targets, task, classes))]
    for card in cards:
        with _named(card):
            method = _ready(card, task, folder, model, seed, settings)
            if method.needs_attention:
                net = _vit(method, task)
            else:
                net = bound(method, task, model, to_mix=True)
            steps = [
                Step(images, targets, rng=rng, task=task, model=net, split=split)
                for rng in (generator(seed, "mix", number) for number in range(TRIES))
            ]
            other = copy.deepcopy(net).eval()
            for step in steps:
                step.teachers, step.ema = dict.fromkeys(card.declared.needs, other), other
            step, mixed, sources = max((_mixed(method, step) for step in steps), key=_evenness)
        # A loss of its own may give other labels to images that come from one source each.
        if sources.index.shape[1] == 1 and "loss" in card.defines:
            texts = told(targets, task, classes)
        else:
            texts = shares_of(sources, step.targets, task, classes)
        changed = [f"{name}={text}" for name, text in given_to(card, settings).items()]
        rows.append(("\n".join([card.name, *changed]), mixed, texts))
    low, high = images.min(), images.max()
    return [Row(name, ((x - low) / (high - low)).clamp(0, 1), texts) for name, x, texts in rows]


@contextmanager
def _named(card: Card) -> Iterator[None]:
    """Name the file and line of an error that a method from outside mixbench raises."""
    try:
        yield
    except MixbenchError:
        raise
    except Exception as error:
        if card.source == "builtin":
            raise
        said = f"{located(card, error)}. `mixbench check {card.path}` says more."
        raise InvalidUnit(said) from error


def drawn(rows: Sequence[Row]) -> Figure:
    """Return a figure of the rows, in blocks side by side if there are many."""
    columns, blocks = len(rows[0].images), math.ceil(len(rows) / TALLEST)
    high = math.ceil(len(rows) / blocks)
    size = ((1.7 * columns + 0.3) * blocks, 2.05 * high)
    figure = Figure(figsize=size, layout="constrained")
    for number, block in enumerate(figure.subfigures(1, blocks, squeeze=False)[0]):
        panels = block.subplots(high, columns, squeeze=False)
        for panel in panels.flat:
            panel.axis("off")
        for axes, row in zip(panels, rows[number * high :][:high], strict=False):
            _draw_row(axes, row)
    return figure


def _draw_row(axes: Sequence[Axes], row: Row) -> None:
    for panel, image, text in zip(axes, row.images, row.texts, strict=True):
        panel.axis("on")
        panel.imshow(image.permute(1, 2, 0).numpy(), cmap="gray", vmin=0, vmax=1)
        panel.set(xticks=[], yticks=[])
        panel.set_xlabel(text, fontsize=7, color=INK)
    axes[0].set_ylabel(row.name, fontsize=9, color=INK)


def drawn_across(rows: Sequence[Row], number: int) -> Figure:
    """Return a figure with one column for each method, of the first images of each."""
    number = min(number, len(rows[0].images))
    figure = Figure(figsize=(1.5 * len(rows), 1.5 * number + 0.2), layout="compressed")
    panels = figure.subplots(number, len(rows), squeeze=False)
    for column, row in enumerate(rows):
        for panel, image in zip(panels[:, column], row.images, strict=False):
            panel.imshow(image.permute(1, 2, 0).numpy(), cmap="gray", vmin=0, vmax=1)
            panel.set(xticks=[], yticks=[])
            panel.spines[:].set_visible(False)
        panels[0, column].set_title(row.name, fontsize=10, color=INK)
    return figure


def _vit(method: Method, task: Task) -> Backbone:
    """Return an untrained network with attention maps, with the method bound to it."""
    small = max(task.image_size) <= SMALL_SIDE
    with torch.random.fork_rng():
        torch.manual_seed(0)
        name = "small_test_vit" if small else "test_vit"
        net = build(name, classes=task.num_classes, size=task.image_size)
        attach(method, net, task)
    return net


def _mixed(method: Method, step: Step) -> tuple[Step, Tensor, Sources]:
    """Return a step, the first images that the method mixes from it, and their sources."""
    number = len(step.images)
    mixed, sources = method.mix(step.images, step)
    return step, mixed[:number].detach(), sources.rows(slice(number))


def _evenness(shown: tuple[Step, Tensor, Sources]) -> tuple[float, float]:
    """Return how evenly the images are mixed, and how much they change.

    The first is 1/4 if half of each image is another's, and 0 if they are not mixed.
    """
    step, mixed, (index, weight, _) = shown
    own = (weight * (index == torch.arange(len(index))[:, None])).sum(1)
    return float((own * (1 - own)).mean()), float((mixed - step.images[: len(mixed)]).abs().mean())


def _ready(
    card: Card, task: Task, folder: Path, model: str, seed: int, settings: Sequence[Setting]
) -> Method:
    """Return a method; run its `prepare` on untrained models if it has one."""
    toy = card.declared.by_protocol.get("toy", {})
    values = parameters_of(card, toy, given_to(card, settings))
    method = load_method(card)(**values)
    if "prepare" in card.defines:
        needs: Mapping[str, Need] = card.declared.needs
        scorers = {r: load_method(find("method", need.method)) for r, need in needs.items()}
        prepare(method, scorers, task, model, folder, seed)
    return method
