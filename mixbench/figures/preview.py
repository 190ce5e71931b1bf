"""What methods make of the same images, side by side, before anything is trained."""

import textwrap
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor

from mixbench.contract import Method, Sources, Step, Task
from mixbench.contract.loading import load_method
from mixbench.declare import Need
from mixbench.figures.mixes import INK, shares_of, told
from mixbench.registry.cards import Card
from mixbench.registry.units import find
from mixbench.streams import generator
from mixbench.train.untrained import bound, prepare

COLUMNS, WIDEST = 6, 20  # images, and letters of a class's name
TRIES = 16  # steps, of which the one is shown that mixes most evenly


class Row(NamedTuple):
    """Images beside each other.

    Attributes
    ----------
    name
        Of what was done to them.
    images : (N, C, H, W)
        In [0, 1].
    texts
        What each shows, in shares.
    """

    name: str
    images: Tensor
    texts: Sequence[str]


def preview(
    cards: Sequence[Card], task: Task, folder: Path, model: str, seed: int = 0
) -> list[Row]:
    """Return some images, and what each method makes of them, with the shares.

    Of a few steps, the one is shown that mixes most evenly: a method's usual step may mix little.
    Models are untrained: what a method finds by a model (a search, a saliency) is as good as that.

    Parameters
    ----------
    folder
        With the task's data.
    model
        By its name, for methods that look at one.
    """
    split = task.load("train", folder, seed)
    index = _unlike(split.targets, seed)
    images, targets = split.read(index, None), split.targets[index]
    classes = [textwrap.shorten(n, WIDEST, placeholder="…") if " " in n else n[:WIDEST]
               for n in task.class_names(folder)]  # fmt: skip
    rows = [("as they are", images, told(targets, task, classes))]
    for card in cards:
        method = _ready(card, task, folder, model, seed)
        net = bound(method, task, model)
        steps = [
            Step(images, targets, rng=rng, task=task, model=net, split=split)
            for rng in (generator(seed, "mix", number) for number in range(TRIES))
        ]
        step, mixed, sources = max((_mixed(method, step) for step in steps), key=_evenness)
        rows.append((card.name, mixed, shares_of(sources, step.targets, task, classes)))
    low, high = images.min(), images.max()
    return [Row(name, ((x - low) / (high - low)).clamp(0, 1), texts) for name, x, texts in rows]


def drawn(rows: Sequence[Row]) -> Figure:
    """Return a picture of the rows."""
    columns = len(rows[0].images)
    figure = Figure(figsize=(1.7 * columns + 0.3, 2.05 * len(rows)), layout="constrained")
    for axes, row in zip(figure.subplots(len(rows), columns, squeeze=False), rows, strict=True):
        axes[0].set_ylabel(row.name, fontsize=9, color=INK)
        for panel, image, text in zip(axes, row.images, row.texts, strict=True):
            panel.imshow(image.permute(1, 2, 0).numpy(), cmap="gray", vmin=0, vmax=1)
            panel.set(xticks=[], yticks=[])
            panel.set_xlabel(text, fontsize=7, color=INK)
    return figure


def _unlike(targets: Tensor, seed: int) -> Tensor:
    """Return some items, of as many classes as there are among them."""
    drawn = torch.randperm(len(targets), generator=generator(seed, "order"))
    if targets.dim() > 1:
        return drawn[:COLUMNS]
    seen: dict[int, list[int]] = {}
    for item in drawn.tolist():
        seen.setdefault(int(targets[item]), []).append(item)
    turns = [item for turn in zip_longest(*seen.values()) for item in turn if item is not None]
    return torch.tensor(turns[:COLUMNS])


def _mixed(method: Method, step: Step) -> tuple[Step, Tensor, Sources]:
    """Return a step with the first of the images that it is mixed into, and what they are of."""
    number = len(step.images)
    mixed, sources = method.mix(step.images, step)
    return step, mixed[:number].detach(), sources.rows(slice(number))


def _evenness(mixed: tuple[Step, Tensor, Sources]) -> float:
    """Return how much the images are of two: 1/4 if half of each is another's, 0 if none is."""
    index, weight = mixed[2]
    own = (weight * (index == torch.arange(len(index))[:, None])).sum(1)
    return float((own * (1 - own)).mean())


def _ready(card: Card, task: Task, folder: Path, model: str, seed: int) -> Method:
    """Return a method, after its preparation on untrained models if it has one."""
    values = card.declared.by_protocol.get("toy", {})
    method = load_method(card)(**values)
    if "prepare" in card.defines:
        needs: Mapping[str, Need] = card.declared.needs
        scorers = {r: load_method(find("method", need.method)) for r, need in needs.items()}
        prepare(method, scorers, task, model, folder, seed)
    return method
