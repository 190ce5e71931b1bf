"""Figure of the images that a finished cell's method mixes in training, with their labels."""

import textwrap
from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from mixbench.contract import Method, Sources, Step, Task
from mixbench.figures.style import INK
from mixbench.storage.store import Store
from mixbench.streams import generator
from mixbench.vision.images.splits import in_turns
from mixbench.worker.job import data_folder, make_task, revive, take_weights

COLUMNS, NAMED, WIDEST = 8, 3, 20  # images, classes of each, and characters of a class's name


def example_mixes(store: Store, key: str) -> Figure:
    """Return some training images above the images that the trained method mixes from them.

    Parameters
    ----------
    store
        Store with the artifacts of the stage.
    key
        Key of a finished training stage.
    """
    stage = store.manifest(key).spec.stage
    task = make_task(stage)
    folder = data_folder(stage, store)
    model, method = revive(stage, torch.device("cpu"))
    take_weights(key, store, (model, method))
    seed = stage.run.seed
    split = task.load("train", folder, seed)
    index = unlike(split.targets, COLUMNS, seed)
    images, targets = split.read(index, None), split.targets[index]
    rng = generator(seed, "mix", 0)
    step = Step(images, targets, rng=rng, task=task, model=model, split=split)
    # The final model stands for what is not kept: its average, and the models of other cells.
    step.ema, step.teachers = model, dict.fromkeys(method.needs, model)
    with torch.no_grad():
        mixed, sources = method.mix(images, step)
    names = [short(name) for name in task.class_names(folder)]
    labels = shares_of(sources, step.targets, task, names)
    return _draw(images, told(targets, task, names), mixed, labels, _title(method))


def short(name: str) -> str:
    """Return a class's name as it fits below an image."""
    return textwrap.shorten(name, WIDEST, placeholder="…") if " " in name else name[:WIDEST]


def unlike(targets: Tensor, number: int, seed: int) -> Tensor:
    """Return the indices of some items from as many different classes as possible."""
    drawn = torch.randperm(len(targets), generator=generator(seed, "order"))
    if targets.dim() > 1:
        return drawn[:number]
    # Classes take their turns in the order in which they appear.
    _, classes = targets[drawn].unique(return_inverse=True)
    first = torch.full((int(classes.max()) + 1,), len(drawn))
    first = first.scatter_reduce(0, classes, torch.arange(len(drawn)), "amin")
    return drawn[in_turns(first.argsort().argsort()[classes])[:number]]


def shares_of(sources: Sources, targets: Tensor, task: Task, classes: Sequence[str]) -> list[str]:
    """Return a text for each mixed image with its largest label weights."""
    shares = (_one_hot(targets, task)[sources.index] * sources.weight[..., None]).sum(1)
    return ["\n".join(f"{classes[c]}: {v:.2f}" for v, c in _largest(row)) for row in shares]


def told(targets: Tensor, task: Task, classes: Sequence[str]) -> list[str]:
    """Return a text for each image with the names of its classes."""
    return ["\n".join(classes[c] for _, c in _largest(row)) for row in _one_hot(targets, task)]


def _one_hot(targets: Tensor, task: Task) -> Tensor:
    """Return indicators of every image's labels, (B, labels); (B, 0) without class labels."""
    if task.num_classes and targets.dim() == 1:
        return torch.nn.functional.one_hot(targets, task.num_classes).float()
    number = getattr(task, "labels", 0)
    return (targets != 0).float() if number else targets.new_zeros(len(targets), 0).float()


def _largest(shares: Tensor) -> list[tuple[float, int]]:
    """Return an image's largest label weights with their classes, by decreasing weight."""
    values, classes = shares.topk(min(NAMED, len(shares)))
    pairs = zip(values.tolist(), classes.tolist(), strict=True)
    return [(value, name) for value, name in pairs if value > 0]


def _draw(images: Tensor, own: list[str], mixed: Tensor, labels: list[str], title: str) -> Figure:
    number = len(images)
    figure = Figure(figsize=(1.6 * number, 4.4), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=10, color=INK)
    low, high = images.min(), images.max()
    for row, (batch, texts) in enumerate(((images, own), (mixed, labels))):
        for column in range(number):
            axes = figure.add_subplot(2, number, row * number + column + 1)
            shown = ((batch[column] - low) / (high - low)).clamp(0, 1).permute(1, 2, 0)
            axes.imshow(shown.numpy(), cmap="gray", vmin=0, vmax=1)
            axes.set(xticks=[], yticks=[])
            axes.set_xlabel(texts[column], fontsize=7, color=INK)
    return figure


def _title(method: Method) -> str:
    absent = ["its average"] if method.ema_decay else []
    absent += ["the teacher"] if "teacher" in method.needs else []
    said = f" (of the final model, in place of {' and '.join(absent)})" if absent else ""
    own = ", which its loss may change" if type(method).loss is not Method.loss else ""
    name = type(method).__name__
    return f"{name}: training images, and mixed images{said} with labels below{own}"
