"""Run one mixed step: mix at the input, or inside the model with a forward hook."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mixbench.contract import Backbone, Method, Mixing, Output, Sources, Step
from mixbench.declare import Recipe
from mixbench.errors import BadParameter, InvalidUnit
from mixbench.streams import generator
from mixbench.train.distributed import SINGLE_PROCESS, Distributed

TOKENS = "tokens"  # the site at which the model has embedded the images
LAST = "last"  # the last block


class Unmixed(Method):
    """Stands in for a method in steps that do not mix: the plain loss of the unmixed batch."""

    version = 1

    def mix(self, x: Tensor, step: Step) -> tuple[Tensor, Sources]:  # noqa: ARG002  # the contract
        """Return the batch unchanged."""
        return x, Sources.unmixed(x)


UNMIXED = Unmixed()


def acting(method: Method, step: Step) -> Method:
    """Return the method, or its stand-in if the recipe does not mix in this step."""
    return method if step.mixing.mixes else UNMIXED


def mix(method: Method, x: Tensor, step: Step) -> tuple[Tensor, Sources]:
    """Mix images or activations as the recipe says.

    Raises
    ------
    BadParameter
        If the recipe needs as many mixed items as there are in the batch.
    """
    mixed, sources = acting(method, step).mix(x, step)
    unmixed, half = step.mixing.unmixed, step.mixing.half
    if (half or unmixed is not None) and len(mixed) != len(x):
        raise BadParameter(
            f"mix_mode must be batch for {type(method).__name__} with these parameters: it makes "
            f"{len(mixed)} mixed images of {len(x)}."
        )
    if unmixed is not None:
        rows = unmixed.to(x.device)
        mixed = torch.where(rows.view(-1, *[1] * (x.dim() - 1)), x, mixed)
        own, alone = Sources.unmixed(x).index, torch.zeros_like(sources.weight)
        alone[:, 0] = 1
        index = torch.where(rows[:, None], own, sources.index)
        weight = torch.where(rows[:, None], alone, sources.weight)
        sources = Sources(index, weight, sources.more)
    kept = slice(0, (len(mixed) + 1) // 2 if half else None)
    return mixed[kept], sources.rows(kept)


def mixing_of(recipe: Recipe, seed: int, step: int, num_steps: int) -> Mixing:
    """Return how the recipe mixes in a step. The numbers are the same for all methods."""
    if not mixes(recipe, seed, step, num_steps):
        return Mixing(mixes=False)
    unmixed = None
    if recipe.mix_mode == "elem" and recipe.mix_prob < 1:
        drawn = torch.rand(recipe.batch_size, generator=generator(seed, "mixed", step))
        unmixed = drawn >= recipe.mix_prob
    return Mixing(unmixed=unmixed, half=recipe.mix_mode == "half")


def mixes(recipe: Recipe, seed: int, number: int, num_steps: int) -> bool:
    """Return whether the recipe mixes in a step; with `mix_mode` ``elem``, each item decides."""
    epoch = number * recipe.epochs // num_steps
    if recipe.mix_off_epoch and epoch >= recipe.mix_off_epoch:
        return False
    if recipe.mix_prob == 1 or recipe.mix_mode == "elem":
        return True
    return float(torch.rand((), generator=generator(seed, "mixed", number))) < recipe.mix_prob


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
        method = acting(self.method, step)
        loss = method.loss(step.model(part.images), part.sources, step)
        return StepResult(loss, len(part.images))


def choose_site(method: Method, step: Step) -> None:
    """Set the step's site to one of the method's sites, drawn uniformly if there are several."""
    sites = acting(method, step).sites
    if len(sites) > 1:
        step.site = sites[int(torch.randint(len(sites), (), generator=step.rng))]
    else:
        (step.site,) = sites


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
        mixed, sources = mix(method, step.images, step)
        output: Output = step.model(mixed[distributed.rows])
        loss = acting(method, step).loss(output, sources.rows(distributed.rows), step)
        return StepResult(loss, len(mixed) + step.num_saliency_images)
    seen: list[Sources] = []

    def hook(_module: nn.Module, _inputs: tuple[Tensor, ...], activations: Tensor) -> Tensor:
        mixed, sources = mix(method, distributed.gather(activations), step)
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
    if model.blocks:
        blocks[LAST] = model.blocks[-1]
    if model.embedding:
        blocks[TOKENS] = model.embedding
    if site not in blocks:
        raise InvalidUnit(
            f"The method mixes at {site!r}, but the model has only the sites "
            f"{', '.join(['input', *blocks])}. Change `sites` in the method's file."
        )

    def at_tokens(module: nn.Module, inputs: tuple[Tensor, ...], found: Tensor) -> Tensor:
        return model.from_map(hook(module, inputs, model.to_map(found)))

    handle = model.get_submodule(blocks[site]).register_forward_hook(
        at_tokens if site == TOKENS else hook
    )
    try:
        yield
    finally:
        handle.remove()
