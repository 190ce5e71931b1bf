"""A toy task, small enough for fast checks, and the method under test on it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixbench.contract import (
    Backbone,
    ClassIndex,
    Method,
    Part,
    Predictions,
    Score,
    Sources,
    Split,
    Step,
    Task,
)
from mixbench.contract.loading import load_method
from mixbench.declare import Metric, Need
from mixbench.declare.facts import Parameters
from mixbench.registry.cards import Card
from mixbench.registry.units import find
from mixbench.streams import generator
from mixbench.train.untrained import bound, prepare
from mixbench.vision.models.build import sized
from mixbench.vision.models.residual import ResidualNet

CLASSES = 5
SIZES = ((8, 12), (16, 16), (13, 9))  # height, width: non-square, square, odd
SEEDS = range(8)


@dataclass
class ToySplit:
    """A split of images without augmentation.

    Attributes
    ----------
    images : (N, C, H, W) float32
        Images of the split.
    targets : (N,) int64
        Class of each image.
    by_class
        Index of the images by class.
    """

    images: Tensor
    targets: Tensor
    by_class: ClassIndex | None = field(init=False)

    def __post_init__(self) -> None:
        self.by_class = ClassIndex(self.targets, CLASSES)

    def __len__(self) -> int:
        return len(self.targets)

    def to(self, device: torch.device) -> Split:
        """Return the same split with its images on a device."""
        return ToySplit(self.images.to(device), self.targets)

    def read(self, index: Tensor, rng: torch.Generator | None) -> Tensor:  # noqa: ARG002  # the protocol
        """Return the images at the given indices."""
        return self.images[index]


class ToyTask(Task):
    """A task that classifies 96 computed images of 16 x 12 pixels by their dominant colour.

    Parameters
    ----------
    channels
        Number of input channels of the model; the task's images have 3.
    """

    version = 1
    num_classes = CLASSES
    image_size = (16, 12)
    metrics = (Metric("accuracy", "%", higher_is_better=True, primary=True),)

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.channels = channels

    def load(self, part: Part, folder: Path, seed: int) -> ToySplit:  # noqa: ARG002  # nothing to read
        """Return the images, which are the same for all splits."""
        targets = torch.arange(96) % CLASSES
        colours = torch.randn(CLASSES, 3, 1, 1, generator=generator(0, "synthetic"))
        noise = torch.randn(96, 3, 16, 12, generator=generator(1, "synthetic"))
        images = colours[targets] + 0.3 * noise
        return ToySplit(images, targets)

    def build(self, model: str) -> Backbone:  # noqa: ARG002  # there is only one model
        """Return a small residual network whose last feature map has 8 x 6 pixels."""
        net = ResidualNet(8, channels=self.channels, classes=CLASSES, strides=(1, 2, 1))
        return sized(net, self.channels, self.image_size)

    def new_classifier(self, feature_dim: int) -> nn.Module:
        """Return a linear classifier."""
        return nn.Linear(feature_dim, CLASSES)

    def loss(self, out: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy."""
        return F.cross_entropy(out, targets, reduction="none")

    def score(self, predictions: Predictions, targets: Tensor) -> dict[str, Score]:
        """Return the accuracy."""
        right = predictions["outputs"].argmax(1) == targets
        return {"accuracy": Score(100 * float(right.double().mean()))}


@dataclass(frozen=True)
class Subject:
    """A method under test.

    Attributes
    ----------
    make
        Function that returns a new instance of the method, not bound to a model.
    card
        Card of the method's file; None for a class without a file.
    scorers
        Functions that create the methods whose trained models the method under test needs, by role.
    """

    make: Callable[[], Method]
    card: Card | None = None
    scorers: Mapping[str, Callable[[], Method]] = field(default_factory=dict)

    @cached_property
    def prepared(self) -> Mapping[str, Tensor]:
        """Buffers of the method after its preparation with untrained models, by name."""
        method = self.make()
        prepare(method, self.scorers, ToyTask(), "toy", Path())
        return dict(method.named_buffers())

    def fresh(self) -> Method:
        """Return a new, prepared method that is not bound to a model."""
        method = self.make()
        method.load_state_dict(self.prepared)
        return method

    def bound(self, channels: int = 3) -> tuple[Method, Backbone, Task]:
        """Return a new, prepared method, the toy task's model with fixed weights, and the task."""
        method, task = self.fresh(), ToyTask(channels)
        return method, bound(method, task, "toy"), task


def subject_of(card: Card, parameters: Parameters | None = None) -> Subject:
    """Return the method of a card, with the methods that it needs, as a subject of checks.

    Parameters
    ----------
    card
        Card of the method.
    parameters
        Values of parameters, by name; they override the defaults and the values of the protocol
        ``toy``.
    """
    values = {**card.declared.by_protocol.get("toy", {}), **(parameters or {})}
    needs: Mapping[str, Need] = card.declared.needs
    scorers = {
        role: partial(
            load_method(find("method", need.method)),
            **{name: values[name] for name in need.share if name in values},
        )
        for role, need in needs.items()
    }
    return Subject(partial(load_method(card), **values), card, scorers)


class Mixed(NamedTuple):
    """A batch before and after mixing.

    Attributes
    ----------
    step
        Step with the unmixed batch.
    images
        Images of the mixed batch.
    sources
        Sources of the mixed images, with their weights.
    """

    step: Step
    images: Tensor
    sources: Sources


def mix(
    subject: Subject, images: Tensor, seed: int, site: str = "input", pool: Tensor | None = None
) -> Mixed:
    """Mix a batch with a new method and a new random generator.

    Parameters
    ----------
    subject
        Method under test.
    images : (B, C, H, W)
        Batch to mix.
    seed
        Seed of the random generator.
    site
        Site at which to mix.
    pool : (N, C, H, W)
        Images from which `Step.draw` draws; None for copies of the batch.
    """
    method, model, task = subject.bound(images.shape[1])
    targets = torch.arange(len(images)) % CLASSES
    others = images.repeat(CLASSES, 1, 1, 1) if pool is None else pool
    classes = torch.arange(len(others)) % CLASSES
    split = ToySplit(others, classes)
    step = Step(images, targets, rng=generator(seed, "mix"), task=task, model=model, split=split)
    step.site = site
    mixed, sources = method.mix(images, step)
    return Mixed(step, mixed, sources)


def lit(number: int, size: tuple[int, int]) -> Tensor:
    """Return images of which image i is 1 in channel i and 0 elsewhere."""
    return torch.eye(number)[:, :, None, None].expand(-1, -1, *size).contiguous()


def noise(number: int, size: tuple[int, int]) -> Tensor:
    """Return images of Gaussian noise, with three channels."""
    return torch.randn(number, 3, *size, generator=generator(0, "synthetic"))


def mixes(subject: Subject, number: int = 6) -> Iterator[tuple[str, Mixed]]:
    """Yield the result of mixing the images of `lit`, for every site, image size and seed."""
    for site in subject.make().sites:
        for size in SIZES:
            images = lit(number + 4 * CLASSES, size)
            for seed in SEEDS:
                where = f"at {site}, {size[0]}x{size[1]} pixels, stream {seed}"
                yield where, mix(subject, images[:number], seed, site, pool=images[number:])


def toy_step(split: Split, task: Task, model: Backbone, number: int) -> Step:
    """Return a step with 32 training images, which depend on `number`."""
    index = torch.arange(number, number + 32) % len(split)
    images, targets = split.read(index, None), split.targets[index]
    rng = generator(number, "mix")
    return Step(images, targets, rng=rng, task=task, model=model, split=split)
