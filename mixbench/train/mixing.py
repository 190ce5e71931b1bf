"""One mixed step: at the input, or inside the model by a hook, so that no backbone knows of it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mixbench.contract import Backbone, Method, Output, Sources, Step
from mixbench.errors import InvalidUnit
from mixbench.train.distributed import SINGLE_PROCESS, Distributed


class StepResult(NamedTuple):
    """The loss of a step, a scalar, and the number of images that the model was run on."""

    loss: Tensor
    num_images: int


class SharedStep(nn.Module):
    """Model and method as one module, as torch wants them to share gradients between processes."""

    def __init__(self, model: Backbone, method: Method, distributed: Distributed) -> None:
        super().__init__()
        self.model = model
        self.method = method
        self.distributed = distributed

    def forward(self, step: Step) -> StepResult:
        """Return the loss of this process's rows of the mixed batch."""
        return mixed_step(self.method, step, self.distributed)


def choose_site(method: Method, step: Step) -> None:
    """Say where a step mixes: at one of the method's sites, drawn if there are several."""
    if len(method.sites) > 1:
        choice = torch.randint(len(method.sites), (), generator=step.rng)
        step.site = method.sites[int(choice)]
    else:
        (step.site,) = method.sites


def mixed_step(method: Method, step: Step, distributed: Distributed = SINGLE_PROCESS) -> StepResult:
    """Mix a batch at one of the method's sites, and return the loss.

    Mixing inside the model runs as a forward hook on the named block, so that backbones hold no
    mixing code.

    Parameters
    ----------
    distributed
        Of several processes, each passes its own rows of the mixed batch through the model.

    Raises
    ------
    InvalidUnit
        If the model has no such block.
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
    """Let a hook change what the block of a site returns.

    The model is to be run meanwhile, not called: a compiled one does not see a hook that comes and
    goes.

    Raises
    ------
    InvalidUnit
        If the model has no such block.
    """
    blocks = {f"block{i}": name for i, name in enumerate(model.blocks, start=1)}
    if site not in blocks:
        raise InvalidUnit(
            f"The method mixes at {site!r}, which the model does not have: it has "
            f"{', '.join(['input', *blocks])}."
        )
    handle = model.get_submodule(blocks[site]).register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
