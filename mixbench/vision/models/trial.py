"""Try a network with a blank image, and tell what it raises in a sentence."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from mixbench.contract import Backbone
from mixbench.errors import UsageError

# What a network may raise for images that it does not take.
OF_THE_MODEL = (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


@contextmanager
def refused_as(sentence: str) -> Iterator[None]:
    """Raise the errors of a network as a `UsageError` that begins with a sentence."""
    try:
        yield
    except OF_THE_MODEL as error:
        raise UsageError(f"{sentence}: {error}") from error


def try_size(model: Backbone, channels: int, size: tuple[int, int]) -> None:
    """Let a model predict a blank image of this size, in pixels."""
    training, device = model.training, next(model.parameters()).device
    with torch.no_grad():
        model.eval()(torch.zeros(1, channels, *size, device=device))
    model.train(training)
