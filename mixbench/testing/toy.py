"""A toy task, small enough for fast checks, and the method under test on it."""

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixbench.contract import (
    Backbone,
    ClassIndex,
    Method,
    Normalization,
    Part,
    Predictions,
    Score,
    Sources,
    Split,
    Step,
    Task,
    attach,
)
from mixbench.contract.loading import load_method
from mixbench.declare import Metric, Need
from mixbench.declare.facts import Parameters
from mixbench.registry.cards import Card
from mixbench.registry.units import find
from mixbench.streams import generator
from mixbench.train.untrained import prepare
from mixbench.vision.models.build import build, sized
from mixbench.vision.models.residual import ResidualNet

CLASSES = 5
SIZES = ((8, 12), (16, 16), (13, 9))  # height, width: non-square, square, odd
SEEDS = range(8)
TOY_VIT = "toy_vit"  # model for methods that need attention


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
    size : pixels
        Height and width of the images that the ViT gets, which takes no others; those of the
        task's images by default.
    """

    version = 1
    num_classes = CLASSES
    image_size = (16, 12)
    metrics = (Metric("accuracy", "%", higher_is_better=True, primary=True),)

    def __init__(self, channels: int = 3, size: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.channels, self.size = channels, size or self.image_size
        self.normalization = Normalization((0.0,) * channels, (1.0,) * channels)

    def load(self, part: Part, folder: Path, seed: int) -> ToySplit:  # noqa: ARG002  # nothing to read
        """Return the images, which are the same for all splits."""
        targets = torch.arange(96) % CLASSES
        colours = torch.randn(CLASSES, 3, 1, 1, generator=generator(0, "synthetic"))
        noise = torch.randn(96, 3, 16, 12, generator=generator(1, "synthetic"))
        images = colours[targets] + 0.3 * noise
        return ToySplit(images, targets)

    def build(self, model: str) -> Backbone:
        """Return a small ViT, or a residual network whose last feature map has 8 x 6 pixels."""
        if model == TOY_VIT:
            return build("small_test_vit", classes=CLASSES, size=self.size, channels=self.channels)
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

    @cached_property
    def mixes(self) -> list[tuple[str, "Mixed"]]:
        """Results of mixing, each with a description of its batch; see `mixes`."""
        return list(mixes(self))

    def fresh(self) -> Method:
        """Return a new, prepared method that is not bound to a model."""
        method = self.make()
        method.load_state_dict(self.prepared)
        return method

    def bound(
        self, channels: int = 3, size: tuple[int, int] | None = None
    ) -> tuple[Method, Backbone, Task]:
        """Return a new, prepared method, the toy task's model with fixed weights, and the task.

        Parameters
        ----------
        channels
            Number of channels of the images that the model gets.
        size : pixels
            Their height and width, which a ViT must know; those of the toy task by default.
        """
        method, task = self.fresh(), ToyTask(channels, size)
        model = copy.deepcopy(_built(TOY_VIT if method.needs_attention else "toy", channels, size))
        with torch.random.fork_rng():
            torch.manual_seed(0)
            attach(method, model, task)
        return method, model, task


@cache
def _built(model: str, channels: int, size: tuple[int, int] | None) -> Backbone:
    """Return a model of the toy task with fixed weights, which must not be modified."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ToyTask(channels, size).build(model)


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

    @classmethod
    def of(cls, step: Step, images: Tensor, sources: Sources) -> "Mixed":
        """Return the results without the graph of a method that learns how to mix."""
        return cls(
            step, images.detach(), Sources.of(*(tensor.detach() for tensor in sources.tensors))
        )


def mix(subject: Subject, images: Tensor, seed: int, *, overwritable: bool = False) -> Mixed:
    """Mix a batch with a new method and a new random generator; see `step_of`."""
    method, model, task = subject.bound(images.shape[1], (images.shape[2], images.shape[3]))
    step = step_of(images, seed, task, model, overwritable=overwritable)
    return Mixed.of(step, *method.mix(step.images, step))


def step_of(
    images: Tensor,
    seed: int,
    task: Task,
    model: Backbone,
    *,
    pool: Tensor | None = None,
    overwritable: bool = False,
) -> Step:
    """Return a step with a batch.

    Parameters
    ----------
    images : (B, C, H, W)
        The batch.
    seed
        Seed of the random generator.
    task, model
        Task and model of the step.
    pool : (N, C, H, W)
        Images from which `Step.draw` draws; None for copies of the batch.
    overwritable
        Whether the method may overwrite the batch.
    """
    others = images.repeat(CLASSES, 1, 1, 1) if pool is None else pool
    step = _ToyStep(
        images,
        torch.arange(len(images)) % CLASSES,
        rng=generator(seed, "mix"),
        task=task,
        model=model,
        split=ToySplit(others, torch.arange(len(others)) % CLASSES),
        overwritable=overwritable,
    )
    return _with_teachers(step)


def lit(number: int, size: tuple[int, int], channels: int, seed: int = 0) -> Tensor:
    """Return images that show where each of them ends up in a mixed batch.

    Image i is 1 in channel i and 0 in the others, except that the last channel of every image has
    one bright pixel, at a random place: it is what a method finds salient.
    """
    images = torch.zeros(number, channels, *size)
    shown = min(number, channels - 1)
    images[torch.arange(shown), torch.arange(shown)] = 1
    pixels = torch.randint(size[0] * size[1], (number,), generator=generator(seed, "synthetic"))
    images[:, -1].flatten(1)[torch.arange(number), pixels] = 9
    return images


def noise(number: int, size: tuple[int, int]) -> Tensor:
    """Return images of Gaussian noise, with three channels."""
    return torch.randn(number, 3, *size, generator=generator(0, "synthetic"))


# Batch size, channels (None: one for each image) and whether the batch may be overwritten.
BATCHES: tuple[tuple[int, int | None, bool], ...] = (
    (6, None, False),
    (5, None, True),
    (2, 3, False),
    (6, None, True),
    (1, None, False),
    (3, 3, True),
    (5, None, False),
    (1, None, True),
    (3, 3, False),
    (2, 3, True),
)


def mixes(subject: Subject) -> Iterator[tuple[str, Mixed]]:
    """Yield the result of mixing the images of `lit`, for every site, image size and batch."""
    for site in subject.make().sites:
        for size in SIZES:
            for seed, (number, channels, overwritable) in enumerate(BATCHES):
                images = lit(number + 4 * CLASSES, size, channels or number + 4 * CLASSES + 1, seed)
                method, model, task = subject.bound(images.shape[1], size)
                step = step_of(
                    images[:number].clone(), seed, task, model, pool=images[number:],
                    overwritable=overwritable,
                )  # fmt: skip
                step.site = site
                mixed, sources = method.mix(step.images, step)
                # A method that may overwrite the batch has destroyed what the step held.
                step.images = torch.cat([images[:number], step.images[number:]])
                allowed = ", may overwrite" if overwritable else ""
                where = (
                    f"at {site}, {size[0]}x{size[1]} pixels, {images.shape[1]} channels, batch of "
                    f"{number}{allowed}, stream {seed}"
                )
                yield where, Mixed.of(step, mixed, sources)


def toy_step(split: Split, task: Task, model: Backbone, number: int) -> Step:
    """Return a step with 32 training images, which depend on `number`."""
    index = torch.arange(number, number + 32) % len(split)
    images, targets = split.read(index, None), split.targets[index]
    rng = generator(number, "mix")
    step = _ToyStep(images, targets, rng=rng, task=task, model=model, split=split)
    return _with_teachers(step)


class _Untrained(dict[str, Backbone]):
    """A teacher for every role that a method may ask for: a copy of the model."""

    def __init__(self, model: Backbone) -> None:
        super().__init__()
        self._model = model

    def __missing__(self, role: str) -> Backbone:
        self[role] = copy.deepcopy(self._model).eval()
        return self[role]


class _ToyStep(Step):
    """A step whose average of the model is a copy of it, made when it is asked for."""

    _average: Backbone | None = None

    @property
    def ema(self) -> Backbone | None:
        """Copy of the model, in evaluation mode."""
        if self._average is None:
            self._average = copy.deepcopy(self.model).eval()
        return self._average

    @ema.setter
    def ema(self, average: Backbone | None) -> None:
        self._average = average


def _with_teachers(step: Step) -> Step:
    """Return the step with copies of its model as teachers."""
    step.teachers = _Untrained(step.model)
    return step
