"""Run one mixed step: mix at the input, or inside the model with a forward hook."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mixbench.contract import Backbone, Method, Output, Sources, Step
from mixbench.errors import InvalidUnit
from mixbench.train.distributed import SINGLE_PROCESS, Distributed


class StepResult(NamedTuple):
    """The result of a training step.

    Attributes
    ----------
    loss
        The loss, a scalar.
    num_images
        Number of images that the model processed, including those for saliency maps.
    """

    loss: Tensor
    num_images: int


class MixedBatch(NamedTuple):
    """Some rows of a batch that was mixed at the input.

    Attributes
    ----------
    images : (B, C, H, W)
        The mixed images.
    sources
        Their sources.
    """

    images: Tensor
    sources: Sources


class SharedStep(nn.Module):
    """Model and method as one module, so that DDP averages the gradients of both."""

    def __init__(self, model: Backbone, method: Method, distributed: Distributed) -> None:
        super().__init__()
        self.model = model
        self.method = method
        self.distributed = distributed

    def forward(self, step: Step, part: "MixedBatch | None" = None) -> StepResult:
        """Return the loss of this process's rows of the mixed batch, or of a part of them."""
        if part is None:
            return mixed_step(self.method, step, self.distributed)
        loss = self.method.loss(step.model(part.images), part.sources, step)
        return StepResult(loss, len(part.images))


def choose_site(method: Method, step: Step) -> None:
    """Set the step's site to one of the method's sites, drawn uniformly if there are several."""
    if len(method.sites) > 1:
        choice = torch.randint(len(method.sites), (), generator=step.rng)
        step.site = method.sites[int(choice)]
    else:
        (step.site,) = method.sites


def mixed_step(method: Method, step: Step, distributed: Distributed = SINGLE_PROCESS) -> StepResult:
    """Mix a batch at one of the method's sites, run the forward pass and return the loss.

    Inside the model, a forward hook on the block of the site mixes its output. Models therefore
    need no mixing code.

    Parameters
    ----------
    method
        The method that mixes and computes the loss.
    step
        The step, with the unmixed batch.
    distributed
        The processes of a distributed run. Each passes its own rows of the mixed batch through the
        model.

    Returns
    -------
    result
        The loss and the number of images processed.

    Raises
    ------
    InvalidUnit
        If the model has no block for the site.
    """
    choose_site(method, step)
    if step.site == "input":
        mixed, sources = method.mix(step.images, step)
        output: Output = step.model(mixed[distributed.rows])
        loss = method.loss(output, sources.rows(distributed.rows), step)
        return StepResult(loss, len(mixed) + step.num_saliency_images)
    seen: list[Sources] = []

    def hook(_module: nn.Module, _inputs: tuple[Tensor, ...], activations: Tensor) -> Tensor:
        mixed, sources = method.mix(distributed.gather(activations), step)
        seen.append(sources.rows(distributed.rows))
        return mixed[distributed.rows]

    with hooked(step.model, step.site, hook):
        output = step.model.forward(step.images[distributed.rows])
    loss = method.loss(output, seen[0], step)
    return StepResult(loss, len(step.images) + step.num_saliency_images)


@contextmanager
def hooked(model: Backbone, site: str, hook: Callable[..., Tensor]) -> Iterator[None]:
    """Register a hook that replaces the output of a site's block, and remove it at the exit.

    Inside the context call ``model.forward``, not ``model``: a compiled model ignores hooks that
    are added and removed.

    Raises
    ------
    InvalidUnit
        If the model has no such block.
    """
    blocks = {f"block{i}": name for i, name in enumerate(model.blocks, start=1)}
    if site not in blocks:
        raise InvalidUnit(
            f"The method mixes at {site!r}, but the model has only the sites "
            f"{', '.join(['input', *blocks])}. Change `sites` in the method's file."
        )
    handle = model.get_submodule(blocks[site]).register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
