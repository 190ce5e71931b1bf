"""Compute the gradients of a step eagerly, or replay them from CUDA graphs.

A small model's step takes a GPU less time than the host needs to launch its hundreds of kernels. A
CUDA graph launches all of them at once. Mixing stays outside the graphs: methods draw random
numbers on the host, and mix on the device before the captured work or between two parts of it. The
optimizer stays outside, too, because its learning rate changes.
"""

import gc
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mixbench.contract import Method, Step
from mixbench.declare import Recipe
from mixbench.errors import BadParameter, MixbenchError
from mixbench.train.cuda_graphs import (
    GraphBackend,
    HiddenMixGraph,
    InputMixGraph,
    LossAndGrads,
    StepComputation,
)
from mixbench.train.distributed import Distributed
from mixbench.train.mixing import MixedBatch, SharedStep, StepResult, choose_site, mix

WARMUP_STEPS, VALIDATION_STEPS = 2, 8  # eager steps of each shape, then compared ones
TOLERANCE, BFLOAT16_TOLERANCE, ABSOLUTE_TOLERANCE = (
    1e-3,
    2e-2,
    1e-5,
)  # between replayed and eager gradients: sums are taken in another order
Key = tuple[str | torch.Size | torch.dtype, ...]


class Gradients(Protocol):
    """Computes a step's gradients, leaves them in the parameters and returns the loss."""

    def __call__(self, step: Step) -> StepResult:
        """Run the forward and backward pass of a batch."""
        ...


class EagerGradients:
    """Gradients computed eagerly in every step.

    Parameters
    ----------
    shared
        Model and method: a `SharedStep`, or a DDP module around it in a distributed run.
    recipe
        The recipe, whose `precision` decides on autocast.
    """

    def __init__(self, shared: nn.Module, recipe: Recipe) -> None:
        self._shared = shared
        self._half = recipe.precision == "bfloat16"

    def __call__(self, step: Step) -> StepResult:
        """Mix a batch and run its forward and backward pass eagerly."""
        with torch.autocast(step.images.device.type, torch.bfloat16, self._half):
            loss, num_images = self._shared(step)
        for parameter in self._shared.parameters():
            parameter.grad = None
        loss.backward()
        return StepResult(loss.detach(), num_images)


class AccumulatedGradients:
    """Gradients computed eagerly, part by part of the batch, and added up.

    The whole batch is mixed before it is divided, so that the loss is that of the whole batch but
    for the order of sums, and for batch norms, which see one part at a time.

    Parameters
    ----------
    shared, recipe
        See `EagerGradients`; `Recipe.accumulate` is the number of parts.
    method
        The method, which must mix at the input.
    distributed
        The processes of a distributed run.
    """

    def __init__(
        self, shared: nn.Module, recipe: Recipe, method: Method, distributed: Distributed
    ) -> None:
        self._shared, self._method, self._distributed = shared, method, distributed
        self._half = recipe.precision == "bfloat16"
        self._number = recipe.accumulate

    def __call__(self, step: Step) -> StepResult:
        """Mix a batch, and run the forward and backward pass of each part."""
        choose_site(self._method, step)
        autocast = partial(
            torch.autocast, step.images.device.type, torch.bfloat16, enabled=self._half
        )
        with autocast():
            mixed, sources = mix(self._method, step.images, step)
        if any(tensor.requires_grad for tensor in (mixed, *sources.tensors)):
            raise BadParameter(
                f"accumulate must be 1 for {type(self._method).__name__}, which trains what it "
                f"mixes with (got {self._number})."
            )
        num_images = len(mixed) + step.num_saliency_images
        for parameter in self._shared.parameters():
            parameter.grad = None
        own = torch.arange(len(mixed))[self._distributed.rows]
        total = torch.zeros((), device=mixed.device)
        parts = own.to(mixed.device).chunk(self._number)
        for number, rows in enumerate(parts, 1):
            # Processes exchange gradients once, after the last part.
            waits = number < len(parts) and isinstance(self._shared, DistributedDataParallel)
            with cast(DistributedDataParallel, self._shared).no_sync() if waits else nullcontext():
                with autocast():
                    part = MixedBatch(mixed[rows], sources.rows(rows))
                    loss = self._shared(step, part).loss * (len(rows) / len(own))
                loss.backward()
            total += loss.detach()
        return StepResult(total, num_images)


def check_accumulation(method: Method, recipe: Recipe) -> None:
    """Check that a method mixes whole batches before they are divided.

    Raises
    ------
    BadParameter
        If batches are divided and the method mixes inside the model.
    """
    if recipe.accumulate > 1 and tuple(method.sites) != ("input",):
        raise BadParameter(
            f"accumulate must be 1 for {type(method).__name__}, which mixes whole batches inside "
            f"the model (got {recipe.accumulate})."
        )


class GraphGradients:
    """Gradients replayed from CUDA graphs, one graph for every site and every shape of inputs.

    The first `WARMUP_STEPS` steps of a kind are computed eagerly. The next `VALIDATION_STEPS` are
    both computed and replayed. If the gradients differ, this kind of step is computed eagerly from
    then on: its loss may depend on values of the host, which a graph keeps constant. The same holds
    for a kind that cannot be captured.

    Parameters
    ----------
    shared
        The model and the method, for training in one process.
    recipe
        The recipe, whose `precision` decides on autocast and on the tolerance of the comparison.
    backend
        Captures and replays the work.
    log
        Function that receives one message for every kind of step: captured, or why not.
    """

    def __init__(
        self, shared: SharedStep, recipe: Recipe, backend: GraphBackend, log: Callable[[str], None]
    ) -> None:
        self._shared, self._backend, self._log = shared, backend, log
        half = recipe.precision == "bfloat16"
        self._tolerance = BFLOAT16_TOLERANCE if half else TOLERANCE
        self._work = StepComputation(shared, half=half)
        self._eager = EagerGradients(shared, recipe)
        self._learns_to_mix = False
        self._seen: Counter[Key] = Counter()
        self._graphs: dict[Key, InputMixGraph | HiddenMixGraph | None] = {}

    def __call__(self, step: Step) -> StepResult:
        """Mix a batch and run its forward and backward pass, by replay where possible."""
        method, drawn = self._shared.method, step.rng.get_state()
        if self._learns_to_mix:
            return self._eager(step)
        choose_site(method, step)
        compute: Callable[[], LossAndGrads]
        if step.site == "input":
            before = [b.clone() for b in method.buffers()] if not self._seen else []
            mixed, sources = mix(method, step.images, step)
            # Their gradients would have to leave the graph.
            if any(tensor.requires_grad for tensor in (mixed, *sources.tensors)):
                self._learns_to_mix = True
                for buffer, old in zip(method.buffers(), before, strict=False):
                    buffer.copy_(old)
                return self._eagerly(step, drawn)
            inputs = [mixed, *sources.tensors, _padded(step.targets)]
            compute = partial(self._work.at_input, step, inputs, step.images)
        else:
            inputs = [step.images, step.targets]
            compute = partial(self._compute, step, drawn)
        loss, *gradients = self._loss_and_grads(step, inputs, compute)
        for parameter, gradient in zip(self._work.parameters, gradients, strict=True):
            parameter.grad = gradient
        assert loss is not None
        return StepResult(loss, len(inputs[0]) + step.num_saliency_images)

    def _eagerly(self, step: Step, drawn: Tensor) -> StepResult:
        """Compute a step eagerly, from the given generator state."""
        step.rng.set_state(drawn)
        step.num_saliency_images = 0
        return self._eager(step)

    def _compute(self, step: Step, drawn: Tensor) -> LossAndGrads:
        """Return loss and gradients of a step that mixes inside the model, computed eagerly."""
        loss = self._eagerly(step, drawn).loss
        return [loss, *(parameter.grad for parameter in self._work.parameters)]

    def _loss_and_grads(
        self, step: Step, inputs: list[Tensor], compute: Callable[[], LossAndGrads]
    ) -> LossAndGrads:
        """Return the step's loss and gradients: computed eagerly, replayed, or both to compare."""
        mode = "mixed" if step.mixing.mixes else "unmixed"
        shapes = (part for tensor in inputs for part in (tensor.shape, tensor.dtype))
        key = (step.site, mode, *shapes)
        self._seen[key] += 1
        if self._seen[key] > WARMUP_STEPS and key not in self._graphs:
            self._graphs[key] = self._capture(step, inputs)
        graph = self._graphs.get(key)
        if graph is None:
            return compute()
        if self._seen[key] > WARMUP_STEPS + VALIDATION_STEPS:
            return graph.replay(step, inputs)
        with self._without_side_effects(step):
            replayed = [t if t is None else t.clone() for t in graph.replay(step, inputs)]
            replayed += [buffer.clone() for buffer in self._shared.buffers()]
        computed = compute()
        close = partial(_close, tolerance=self._tolerance)
        if not all(map(close, replayed, [*computed, *self._shared.buffers()])):
            self._graphs[key] = None
            self._log(
                "the training step is not captured as a CUDA graph: the replayed gradients differ "
                "from the eager ones. The loss depends on values that the host computes; see "
                "docs/method-contract.md."
            )
        elif self._seen[key] == WARMUP_STEPS + VALIDATION_STEPS:
            shape = tuple(inputs[0].shape)
            self._log(f"CUDA graph captured: mixed at {step.site}, for inputs of shape {shape}")
        return computed

    def _capture(
        self, step: Step, inputs: Sequence[Tensor]
    ) -> InputMixGraph | HiddenMixGraph | None:
        """Capture a step, or log why it cannot be captured and return None.

        Raises
        ------
        MixbenchError
            If the capture fails although the check found nothing against it.
        """
        kind = InputMixGraph if step.site == "input" else HiddenMixGraph
        try:
            with self._without_side_effects(step):
                kind(self._work, self._backend.check_capturable, step, inputs)
        except RuntimeError as error:
            self._log(
                f"the training step is not captured as a CUDA graph, mixed at {step.site}: "
                f"{_line(error)}"
            )
            return None
        gc.collect()  # free tensors of earlier steps, which other streams may own
        try:
            with self._without_side_effects(step):
                return kind(self._work, self._backend.capture, step, inputs)
        except RuntimeError as error:  # torch cannot continue after a failed capture
            raise MixbenchError(
                f"The training step, mixed at {step.site}, must be capturable as a CUDA graph, but "
                f"the capture failed ({_line(error)}). Run the command again without --cuda-graphs."
            ) from error

    @contextmanager
    def _without_side_effects(self, step: Step) -> Iterator[None]:
        """Restore buffers, random generators and counters after the work."""
        buffers, device = [*self._shared.buffers()], step.images.device
        before = [buffer.clone() for buffer in buffers]
        drawn, looked_at = step.rng.get_state(), step.num_saliency_images
        try:
            with torch.random.fork_rng([device] if device.type == "cuda" else []):
                yield
        finally:
            step.rng.set_state(drawn)
            step.num_saliency_images = looked_at
            for buffer, old in zip(buffers, before, strict=True):
                buffer.copy_(old)


def _padded(targets: Tensor) -> Tensor:
    """Return the targets, padded to a power of two with entries that no source refers to.

    Some methods draw a varying number of extra images. Padding limits the number of shapes, each of
    which needs its own graph.
    """
    number = 1 << (len(targets) - 1).bit_length()
    return torch.cat([targets, targets[:1].expand(number - len(targets), *targets.shape[1:])])


def _line(error: Exception) -> str:
    """Return an error's message as one line."""
    return " ".join(str(error).split())


def _close(one: Tensor | None, other: Tensor | None, *, tolerance: float) -> bool:
    """Return whether two tensors differ by rounding only.

    The norms of whole tensors are compared, since single sums may cancel.
    """
    if one is None or other is None:
        return one is other
    far = (one.double() - other.double()).norm()
    return bool(far <= tolerance * other.double().norm() + ABSOLUTE_TOLERANCE)
