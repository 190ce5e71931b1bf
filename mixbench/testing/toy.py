"""A toy task, and a method under test on it: small enough for a check to take no time."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixbench.contract import Method, Part, Score, Sources, Split, Step, Task
from mixbench.declare import Metric
from mixbench.models import ResidualNet
from mixbench.registry.cards import Card
from mixbench.splits import ResidentSplit
from mixbench.streams import generator

CLASSES = 5
SIZES = ((8, 12), (16, 16), (13, 9))  # height, width: non-square, square, divisible by nothing
SEEDS = range(8)


class ToyTask(Task):
    """Tell apart images of one dominant colour per class; 96 of them, 16x12, made by arithmetic."""

    version = 1
    metrics = (Metric("accuracy", "%", higher_is_better=True, primary=True),)

    def load(self, part: Part, folder: Path, seed: int) -> Split:  # noqa: ARG002  # nothing to read
        """Return the images; all parts are alike."""
        targets = torch.arange(96) % CLASSES
        colours = torch.randn(CLASSES, 3, 1, 1, generator=generator(0, "synthetic"))
        noise = torch.randn(96, 3, 16, 12, generator=generator(1, "synthetic"))
        return ResidentSplit(colours[targets] + 0.3 * noise, targets, targets)

    def build(self, model: str) -> nn.Module:  # noqa: ARG002  # there is one
        """Return a small residual net."""
        return ResidualNet(8, channels=3, classes=CLASSES)

    def new_classifier(self, feature_dim: int) -> nn.Module:
        """Return a linear classifier."""
        return nn.Linear(feature_dim, CLASSES)

    def loss(self, out: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy."""
        return F.cross_entropy(out, targets, reduction="none")

    def score(self, outputs: Tensor, targets: Tensor) -> dict[str, Score]:
        """Return the accuracy."""
        return {"accuracy": Score(100 * float((outputs.argmax(1) == targets).double().mean()))}


@dataclass(frozen=True)
class Subject:
    """A method under test.

    Attributes
    ----------
    make
        Returns a fresh, unbound instance.
    card
        What the file says of itself; None for a class without a file.
    """

    make: Callable[[], Method]
    card: Card | None = None

    def bound(self) -> tuple[Method, nn.Module, Task]:
        """Return a fresh method with the toy task's model, always the same weights."""
        task, method = ToyTask(), self.make()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = task.build("")
            method.bind(model, task)
        return method, model, task


class Mixed(NamedTuple):
    """A batch before and after mixing."""

    step: Step
    images: Tensor
    sources: Sources


def mix(subject: Subject, images: Tensor, seed: int, site: str = "input") -> Mixed:
    """Mix a batch with a fresh method and a fresh stream."""
    method, model, task = subject.bound()
    targets = torch.arange(len(images)) % CLASSES
    step = Step(images, targets, rng=generator(seed, "mix"), task=task, model=model)
    step.site = site
    mixed, sources = method.mix(images, step)
    return Mixed(step, mixed, sources)


def lit(number: int, size: tuple[int, int]) -> Tensor:
    """Return images of which number i is 1 in channel i and 0 elsewhere."""
    return torch.eye(number)[:, :, None, None].expand(-1, -1, *size).contiguous()


def noise(number: int, size: tuple[int, int]) -> Tensor:
    """Return images of noise."""
    return torch.randn(number, 3, *size, generator=generator(0, "synthetic"))


def mixes(subject: Subject, number: int = 6) -> Iterator[tuple[str, Mixed]]:
    """Yield what the method makes of lit images at every site, size and seed."""
    for site in subject.make().sites:
        for size in SIZES:
            for seed in SEEDS:
                where = f"at {site}, {size[0]}x{size[1]} pixels, stream {seed}"
                yield where, mix(subject, lit(number, size), seed, site)


def toy_step(split: Split, task: Task, model: nn.Module, number: int) -> Step:
    """Return a step on some training images."""
    index = torch.arange(number, number + 32) % len(split)
    images, targets = split.read(index, None), split.targets[index]
    rng = generator(number, "mix")
    return Step(images, targets, rng=rng, task=task, model=model, split=split)
