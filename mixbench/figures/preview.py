"""What methods make of the same images, side by side, before anything is trained."""

import textwrap
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from mixbench.contract import Method, Split, Step, Task
from mixbench.declare import Need
from mixbench.figures.mixes import INK, shares_of, told
from mixbench.registry.cards import Card
from mixbench.registry.units import find, load_method
from mixbench.stages.untrained import bound, prepare
from mixbench.streams import generator

COLUMNS, WIDEST = 6, 20  # images, and letters of a class's name


def preview(cards: Sequence[Card], task: Task, folder: Path, model: str, seed: int = 0) -> Figure:
    """Return a row of images, and below it what each method makes of them, with the shares.

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
    figure = Figure(figsize=(1.7 * COLUMNS, 2.05 * (len(cards) + 1)), layout="constrained")
    rows = figure.subplots(len(cards) + 1, COLUMNS, squeeze=False)
    low, high = float(images.min()), float(images.max())
    _fill(rows[0], "as they are", images, told(targets, task, classes), (low, high))
    for axes, card in zip(rows[1:], cards, strict=True):
        method = _ready(card, task, folder, model, seed)
        mixed, texts = _mixed(method, (images, targets), split, task, (classes, seed, model))
        _fill(axes, card.name, mixed, texts, (low, high))
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


def _mixed(
    method: Method,
    batch: tuple[Tensor, Tensor],
    split: Split,
    task: Task,
    about: tuple[Sequence[str], int, str],
) -> tuple[Tensor, list[str]]:
    """Return a batch as a method mixes it, and the shares of the classes in it."""
    classes, seed, model = about
    step = Step(
        *batch, rng=generator(seed, "mix", 0), task=task, model=bound(method, task, model),
        split=split,
    )  # fmt: skip
    mixed, sources = method.mix(step.images, step)
    mixed, sources = mixed[:COLUMNS], sources.rows(slice(COLUMNS))
    return mixed.detach(), shares_of(sources, step.targets, task, classes)


def _ready(card: Card, task: Task, folder: Path, model: str, seed: int) -> Method:
    """Return a method, after its preparation on untrained models if it has one."""
    values = card.declared.get("by_protocol", {}).get("toy", {})
    method = load_method(card)(**values)
    if "prepare" in card.defines:
        needs: Mapping[str, Need] = card.declared.get("needs", {})
        scorers = {r: load_method(find("method", need.method)) for r, need in needs.items()}
        prepare(method, scorers, task, model, folder, seed)
    return method


def _fill(
    axes: Sequence[object],
    name: str,
    images: Tensor,
    texts: Sequence[str],
    limits: tuple[float, float],
) -> None:
    """Show a row of images, its name at the left and a text under each."""
    low, high = limits
    for number, panel in enumerate(axes):
        shown = ((images[number] - low) / (high - low)).clamp(0, 1).permute(1, 2, 0)
        panel.imshow(shown.numpy(), cmap="gray", vmin=0, vmax=1)  # type: ignore[attr-defined]
        panel.set(xticks=[], yticks=[])  # type: ignore[attr-defined]
        panel.set_xlabel(texts[number], fontsize=7, color=INK)  # type: ignore[attr-defined]
        if number == 0:
            panel.set_ylabel(name, fontsize=9, color=INK)  # type: ignore[attr-defined]
