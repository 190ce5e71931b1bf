"""What mixing does to decision boundaries in the plane (Figure 5 of the PatchMix paper).

Three linearly separable classes of points, a net of two layers, and the real methods: a point is an
image whose left half has the one coordinate and whose right half the other, and the net sees the
halves' means. (The paper's masks take or leave whole coordinates; a box or a cell may take a part.)
Where a method mixes two far classes into the place of the third, the boundary shows it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from torch import Tensor, nn

from mixbench.contract import Backbone, ClassIndex, Method, Output, Part, Split, Step, Trained
from mixbench.contract.loading import load_method
from mixbench.declare import TOP1, Need
from mixbench.errors import UsageError
from mixbench.figures.mixes import INK
from mixbench.registry.cards import Card
from mixbench.registry.units import find
from mixbench.streams import generator
from mixbench.train.mixing import mixed_step
from mixbench.train.untrained import bound, prepare_from
from mixbench.vision.tasks.classification import Classification

CENTRES = ((-2.0, -0.6), (0.0, 0.9), (2.0, -0.6))
DEVIATION, PER_CLASS = 0.32, 60
COLOURS = ("#2b6cb0", "#c05621", "#2f855a")
STEPS, BATCH, RATE, HIDDEN = 400, 60, 0.02, 32
SIDE = 8  # pixels of an image, half of them for each coordinate
REACH = 3.2, 2.4  # of the shown plane, to each side
SHOWN_STEPS, SHOWN_OF_EACH = 10, 7  # mixed points
# Of methods that have such parameters: two cells across, and the loss of the whole alone.
VALUES = {"grid": 2, "patch_loss": False, "search": "direct", "image_pairs": 20}


@dataclass
class Points:
    """Points as images, (N, 1, SIDE, SIDE), with their classes."""

    images: Tensor
    targets: Tensor
    by_class: ClassIndex | None = field(init=False)

    def __post_init__(self) -> None:
        self.by_class = ClassIndex(self.targets, len(CENTRES))

    def __len__(self) -> int:
        return len(self.targets)

    def to(self, device: torch.device) -> Split:  # noqa: ARG002  # there is no need
        """Return the same points."""
        return self

    def read(self, index: Tensor, rng: torch.Generator | None) -> Tensor:  # noqa: ARG002  # plain
        """Return points."""
        return self.images[index]


def _images_of(points: Tensor) -> Tensor:
    """Return points, (N, 2), as images, (N, 1, SIDE, SIDE)."""
    halves = points.repeat_interleave(SIDE // 2, 1)
    return halves[:, None, None].expand(-1, -1, SIDE, -1).contiguous()


def _points_of(images: Tensor) -> Tensor:
    """Return images as points, (N, 2): the means of their halves."""
    halves: Tensor = images.unflatten(-1, (2, -1))
    return halves.mean((1, 2, 4))


class TwoLayers(Backbone):
    """A hidden layer and a classifier of points."""

    feature_dim, feature_size, blocks = HIDDEN // 2, (2, 2), ()

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(2, HIDDEN)
        self.classifier = nn.Linear(HIDDEN, len(CENTRES))

    def forward(self, x: Tensor) -> Output:
        """Return the scores of the classes, and the hidden units as a map of 2x2 cells."""
        hidden = self.hidden(_points_of(x)).relu()
        features = hidden.view(len(x), -1, 1, 2).expand(-1, -1, 2, -1)
        return Output(self.classifier(hidden), features)


class Plane(Classification):
    """Tell apart three clouds of points."""

    version, channels, metrics = 1, 1, TOP1

    def __init__(self, seed: int) -> None:
        super().__init__(len(CENTRES), (SIDE, SIDE))
        self.seed = seed

    @cache  # noqa: B019  # there are few planes, and they are small
    def load(self, part: Part, folder: Path, seed: int) -> Points:  # noqa: ARG002  # none is needed
        """Draw the points of a part."""
        number = ("train", "validation", "test").index(part)
        rng = generator(self.seed, "synthetic", number)
        targets = torch.arange(len(CENTRES)).repeat(PER_CLASS)
        noise = DEVIATION * torch.randn(len(targets), 2, generator=rng)
        points = torch.tensor(CENTRES)[targets] + noise
        return Points(_images_of(points), targets)

    def build(self, model: str) -> Backbone:  # noqa: ARG002  # there is one
        """Return the net of two layers."""
        return TwoLayers()


def boundaries(cards: Sequence[Card], seed: int = 0) -> Figure:
    """Train the net with each method, and return its regions with some of what it saw.

    Raises
    ------
    UsageError
        If a method mixes inside the net, which has no places for it.
    """
    plane, columns = Plane(seed), min(len(cards), 3)
    rows = -(-len(cards) // columns)
    figure = Figure(figsize=(3.2 * columns, 2.75 * rows), layout="constrained")
    for axes in figure.subplots(rows, columns, squeeze=False).flat[len(cards) :]:
        axes.axis("off")
    figure.supxlabel(
        "Dots: training points. Crosses: what the net was trained on, in the colour of its label. "
        "Accuracy on other points.", fontsize=8, color=INK,
    )  # fmt: skip
    test = plane.load("test", Path(), seed)
    for axes, card in zip(figure.axes, cards, strict=False):
        model, method = _trained(card, plane, seed)
        mixed, colours = _seen(method, model, plane, seed)
        with torch.no_grad():
            right = (model(test.images).out.argmax(1) == test.targets).double().mean()
        extent = (-REACH[0], REACH[0], -REACH[1], REACH[1])
        axes.imshow(_regions(model), extent=extent, origin="lower", aspect="auto")
        axes.scatter(mixed[:, 0], mixed[:, 1], c=colours, marker="x", s=14, linewidths=0.9)
        train = plane.load("train", Path(), seed)
        dots = [COLOURS[target] for target in train.targets.tolist()]
        x, y = _points_of(train.images).T.numpy()
        axes.scatter(x, y, c=dots, s=9, edgecolors="white", linewidths=0.4)
        axes.set_title(f"{card.name}: {100 * right:.1f} %", loc="left", fontsize=10, color=INK)
        axes.set(xticks=[], yticks=[], xlim=extent[:2], ylim=extent[2:])
    return figure


def _trained(
    card: Card, plane: Plane, seed: int, changed: Mapping[str, Any] | None = None
) -> Trained:
    """Return the net that a method trains, and the method."""
    known = {parameter.name for parameter in card.parameters}
    wanted = {**VALUES, **(changed or {})}
    method = load_method(card)(**{name: v for name, v in wanted.items() if name in known})
    if "input" not in method.sites or len(method.sites) > 1:
        raise UsageError(f"{card.name} mixes inside a net; the one of this figure has no place.")
    needs: Mapping[str, Need] = card.declared.needs
    if "prepare" in card.defines:
        first = {
            role: _trained(find("method", need.method), plane, seed, {"patch_loss": True})
            for role, need in needs.items()
        }
        prepare_from(method, first, plane, "", Path(), seed)
    model = bound(method, plane, "").train()
    parameters = [*model.parameters(), *method.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=RATE)
    for number in range(STEPS):
        loss = mixed_step(method, _step(plane, model, seed, number)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return Trained(model.eval(), method.eval())


def _step(plane: Plane, model: Backbone, seed: int, number: int) -> Step:
    """Return one step's batch, the same for every method."""
    split = plane.load("train", Path(), seed)
    index = torch.randperm(len(split), generator=generator(seed, "order", number))[:BATCH]
    rng = generator(seed, "mix", number)
    images, targets = split.images[index], split.targets[index]
    return Step(images, targets, rng=rng, task=plane, model=model, split=split)


def _seen(
    method: Method, model: Backbone, plane: Plane, seed: int
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return some mixed points, (n, 2), with the colours of their labels, (n, 3)."""
    points, colours = [], []
    for number in range(SHOWN_STEPS):
        step = _step(plane, model, seed, STEPS + number)
        mixed, sources = method.mix(step.images, step)
        shares = nn.functional.one_hot(step.targets[sources.index], len(CENTRES)).float()
        labels = (shares * sources.weight[..., None]).sum(1)
        points.append(_points_of(mixed)[:SHOWN_OF_EACH])
        labels = labels[:SHOWN_OF_EACH]
        colours.append(labels @ torch.tensor([to_rgb(colour) for colour in COLOURS]))
    return torch.cat(points).numpy(), torch.cat(colours).numpy()


@torch.no_grad()
def _regions(model: Backbone) -> np.ndarray[Any, Any]:
    """Return the classes' colours, blended by their probabilities, over the plane."""
    lines = (torch.linspace(-reach, reach, n) for reach, n in zip(REACH, (240, 180), strict=True))
    grid = torch.stack(torch.meshgrid(*lines, indexing="xy"), -1)
    scores: Callable[[Tensor], Output] = model
    chances = scores(_images_of(grid.view(-1, 2))).out.softmax(1)
    colours = chances @ torch.tensor([to_rgb(colour) for colour in COLOURS])
    return (0.45 + 0.55 * colours).view(180, 240, 3).numpy()
