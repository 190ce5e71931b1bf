"""The gradients of a step: computed as they come, or recorded once and replayed.

A GPU finishes a small net's step sooner than the host has named its hundreds of operations. Named
once, as a CUDA graph, they are started with one word. Mixing stays outside: what a method draws is
drawn on the host, and applied on the device, before the recorded part begins or between two. So
does the optimiser, whose rate changes.
"""

import gc
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from mixbench.contract import Step
from mixbench.declare import Recipe
from mixbench.errors import MixbenchError
from mixbench.train.cuda_graphs import (
    GraphBackend,
    HiddenMixGraph,
    InputMixGraph,
    LossAndGrads,
    StepComputation,
)
from mixbench.train.mixing import SharedStep, StepResult, choose_site

WARMUP_STEPS, VALIDATION_STEPS = 2, 8  # of each shape: before the recording, and beside it
TOLERANCE, BFLOAT16_TOLERANCE, ABSOLUTE_TOLERANCE = (
    1e-3,
    2e-2,
    1e-5,
)  # of what was recorded: other orders of sums
Key = tuple[str | torch.Size | torch.dtype, ...]


class Gradients(Protocol):
    """Leaves a step's gradients in the parameters, and returns its loss."""

    def __call__(self, step: Step) -> StepResult:
        """Pass a batch forward and backward."""
        ...


class EagerGradients:
    """Gradients computed anew in every step.

    Parameters
    ----------
    shared
        Model and method, as `SharedStep` or what shares its gradients between processes.
    """

    def __init__(self, shared: nn.Module, recipe: Recipe) -> None:
        self._shared = shared
        self._half = recipe.precision == "bfloat16"

    def __call__(self, step: Step) -> StepResult:
        """Pass a batch forward and backward."""
        with torch.autocast(step.images.device.type, torch.bfloat16, self._half):
            loss, num_images = self._shared(step)
        for parameter in self._shared.parameters():
            parameter.grad = None
        loss.backward()
        return StepResult(loss.detach(), num_images)


class GraphGradients:
    """Gradients replayed from a recording, one for every site and every shape of batch.

    The first steps of a kind are computed; the next ones are both computed and replayed, and what
    differs is refused for good: a loss may depend on numbers of the host, which a recording holds
    fast. So is what cannot be recorded.

    Parameters
    ----------
    shared
        Model and method of this process alone.
    log
        Told once of every kind of step what became of it.
    """

    def __init__(
        self, shared: SharedStep, recipe: Recipe, backend: GraphBackend, log: Callable[[str], None]
    ) -> None:
        self._shared, self._backend, self._log = shared, backend, log
        half = recipe.precision == "bfloat16"
        self._tolerance = BFLOAT16_TOLERANCE if half else TOLERANCE
        self._work = StepComputation(shared, half=half)
        self._eager = EagerGradients(shared, recipe)
        self._seen: Counter[Key] = Counter()
        self._graphs: dict[Key, InputMixGraph | HiddenMixGraph | None] = {}

    def __call__(self, step: Step) -> StepResult:
        """Pass a batch forward and backward, mixed on the way."""
        method, drawn = self._shared.method, step.rng.get_state()
        choose_site(method, step)
        compute: Callable[[], LossAndGrads]
        if step.site == "input":
            mixed, sources = method.mix(step.images, step)
            inputs = [mixed, *sources, _padded(step.targets)]
            compute = partial(self._work.at_input, step, inputs)
        else:
            inputs = [step.images, step.targets]
            compute = partial(self._compute, step, drawn)
        loss, *gradients = self._loss_and_grads(step, inputs, compute)
        for parameter, gradient in zip(self._work.parameters, gradients, strict=True):
            parameter.grad = gradient
        assert loss is not None
        return StepResult(loss, len(inputs[0]) + step.num_saliency_images)

    def _compute(self, step: Step, drawn: Tensor) -> LossAndGrads:
        """Compute a step anew that mixes inside the model."""
        step.rng.set_state(drawn)
        loss = self._eager(step).loss
        return [loss, *(parameter.grad for parameter in self._work.parameters)]

    def _loss_and_grads(
        self, step: Step, inputs: list[Tensor], compute: Callable[[], LossAndGrads]
    ) -> LossAndGrads:
        """Return the step's loss and gradients, by whichever way is due."""
        key = (step.site, *(part for tensor in inputs for part in (tensor.shape, tensor.dtype)))
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
        alike = partial(_close, tolerance=self._tolerance)
        if not all(map(alike, replayed, [*computed, *self._shared.buffers()])):
            self._graphs[key] = None
            self._log(
                "the step is not recorded: replayed, it has other gradients. Its loss depends on "
                "numbers of the host; see the contract of methods."
            )
        elif self._seen[key] == WARMUP_STEPS + VALIDATION_STEPS:
            shape = tuple(inputs[0].shape)
            self._log(f"the step is recorded, mixed at {step.site}, for batches of {shape}")
        return computed

    def _capture(
        self, step: Step, inputs: Sequence[Tensor]
    ) -> InputMixGraph | HiddenMixGraph | None:
        """Record a step, or say why that cannot be.

        Raises
        ------
        MixbenchError
            If it fails, although nothing stood against it.
        """
        kind = InputMixGraph if step.site == "input" else HiddenMixGraph
        try:
            with self._without_side_effects(step):
                kind(self._work, self._backend.check_capturable, step, inputs)
        except RuntimeError as error:
            self._log(f"the step is not recorded, mixed at {step.site}: {_line(error)}")
            return None
        gc.collect()  # what is left of earlier steps may belong to other streams
        try:
            with self._without_side_effects(step):
                return kind(self._work, self._backend.capture, step, inputs)
        except RuntimeError as error:  # torch is in no state to go on
            raise MixbenchError(
                f"The step could not be recorded, mixed at {step.site} ({_line(error)}): train it "
                "without --record."
            ) from error

    @contextmanager
    def _without_side_effects(self, step: Step) -> Iterator[None]:
        """Undo what work does to buffers, streams and counters."""
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
    """Return targets with more of them, which nothing names: a power of two.

    Methods that draw more images draw as many as it happens; every number would be a shape.
    """
    number = 1 << (len(targets) - 1).bit_length()
    return torch.cat([targets, targets[:1].expand(number - len(targets), *targets.shape[1:])])


def _line(error: Exception) -> str:
    """Return what an error says, in one line."""
    return " ".join(str(error).split())


def _close(one: Tensor | None, other: Tensor | None, *, tolerance: float) -> bool:
    """Tell whether tensors differ by rounding alone: as wholes, since single sums may cancel."""
    if one is None or other is None:
        return one is other
    far = (one.double() - other.double()).norm()
    return bool(far <= tolerance * other.double().norm() + ABSOLUTE_TOLERANCE)
