"""Effect of mixing on decision boundaries in the plane (Figure 5 of the PatchMix paper).

The figure uses three linearly separable classes of points, a two-layer network and the real
methods. A point is an image: its left half holds the first coordinate and its right half the
second. The network takes the mean of each half. (The paper's masks select whole coordinates; a box
or a grid cell may cover a part of one.) If a method mixes two distant classes into the region of
the third, the boundary shows it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn

from mixbench.contract import Backbone, ClassIndex, Method, Output, Part, Split, Step, Trained
from mixbench.contract.loading import load_method
from mixbench.declare import TOP1, Need
from mixbench.declare.facts import ParameterValue
from mixbench.errors import UsageError
from mixbench.figures.style import INK
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
SIDE = 8  # side of an image in pixels, half of the columns for each coordinate
REACH = 3.2, 2.4  # half the width and half the height of the shown plane
SHOWN_STEPS, SHOWN_OF_EACH = 10, 7  # steps, and mixed points of each step, that are shown
# For methods with these parameters: a 2 x 2 grid, no patch loss and a short direct search.
VALUES = {"grid": 2, "patch_loss": False, "search": "direct", "image_pairs": 20}


@dataclass
class Points:
    """Points as images, with their classes.

    Attributes
    ----------
    images : (N, 1, SIDE, SIDE)
        Images of the points.
    targets : (N,)
        Classes of the points.
    by_class
        Indices of the points of each class.
    """

    images: Tensor
    targets: Tensor
    by_class: ClassIndex | None = field(init=False)

    def __post_init__(self) -> None:
        self.by_class = ClassIndex(self.targets, len(CENTRES))

    def __len__(self) -> int:
        return len(self.targets)

    def to(self, device: torch.device) -> Split:  # noqa: ARG002  # always the CPU
        """Return the same points, whose images stay on the CPU."""
        return self

    def read(self, index: Tensor, rng: torch.Generator | None) -> Tensor:  # noqa: ARG002  # plain
        """Return the images of the points at the given indices."""
        return self.images[index]


def _images_of(points: Tensor) -> Tensor:
    """Convert points, (N, 2), to images, (N, 1, SIDE, SIDE)."""
    halves = points.repeat_interleave(SIDE // 2, 1)
    return halves[:, None, None].expand(-1, -1, SIDE, -1).contiguous()


def _points_of(images: Tensor) -> Tensor:
    """Convert images to points, (N, 2): the means of the left and the right half."""
    halves: Tensor = images.unflatten(-1, (2, -1))
    return halves.mean((1, 2, 4))


class TwoLayers(Backbone):
    """Network of a hidden layer and a classifier, for points in the plane."""

    feature_dim, feature_size, blocks = HIDDEN // 2, (2, 2), ()

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(2, HIDDEN)
        self.classifier = nn.Linear(HIDDEN, len(CENTRES))

    def forward(self, x: Tensor) -> Output:
        """Return the class scores, and the hidden units as a 2 x 2 feature map."""
        hidden = self.hidden(_points_of(x)).relu()
        features = hidden.view(len(x), -1, 1, 2).expand(-1, -1, 2, -1)
        return Output(self.classifier(hidden), features)


class Plane(Classification):
    """Classification of points from three normal distributions."""

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
        """Return the two-layer network."""
        return TwoLayers()


def boundaries(cards: Sequence[Card], seed: int = 0) -> Figure:
    """Train the network with each method, and plot its class regions with some mixed points.

    Parameters
    ----------
    cards
        Cards of the methods to show, one panel each.
    seed
        Seed of the points, the training and the mixes.

    Raises
    ------
    UsageError
        If a method mixes inside the network, which this network does not support.
    """
    plane, columns = Plane(seed), min(len(cards), 3)
    rows = -(-len(cards) // columns)
    figure = Figure(figsize=(3.2 * columns, 2.75 * rows), layout="constrained")
    for axes in figure.subplots(rows, columns, squeeze=False).flat[len(cards) :]:
        axes.axis("off")
    figure.supxlabel(
        "Dots: training points. Crosses: mixed points, in the colours of their mixed labels. "
        "Titles: accuracy on test points.", fontsize=8, color=INK,
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
    card: Card, plane: Plane, seed: int, changed: Mapping[str, ParameterValue] | None = None
) -> Trained:
    """Train the network with a method; return both."""
    known = {parameter.name for parameter in card.parameters}
    wanted = {**VALUES, **(changed or {})}
    method = load_method(card)(**{name: v for name, v in wanted.items() if name in known})
    if "input" not in method.sites or len(method.sites) > 1:
        raise UsageError(
            f"{card.name} mixes inside the network, which this figure does not support: "
            "leave it out of -m."
        )
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
    """Return the batch of one training step, which is the same for every method."""
    split = plane.load("train", Path(), seed)
    index = torch.randperm(len(split), generator=generator(seed, "order", number))[:BATCH]
    rng = generator(seed, "mix", number)
    images, targets = split.images[index], split.targets[index]
    return Step(images, targets, rng=rng, task=plane, model=model, split=split)


def _seen(
    method: Method, model: Backbone, plane: Plane, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return some mixed points, (n, 2), and the colours of their labels, (n, 3)."""
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
def _regions(model: Backbone) -> NDArray[np.float32]:
    """Return an image of the plane: the class colours, blended by the predicted probabilities."""
    lines = (torch.linspace(-reach, reach, n) for reach, n in zip(REACH, (240, 180), strict=True))
    grid = torch.stack(torch.meshgrid(*lines, indexing="xy"), -1)
    scores: Callable[[Tensor], Output] = model
    chances = scores(_images_of(grid.view(-1, 2))).out.softmax(1)
    colours = chances @ torch.tensor([to_rgb(colour) for colour in COLOURS])
    return (0.45 + 0.55 * colours).view(180, 240, 3).numpy()
