"""The gradients of a step: computed as they come, or recorded once and replayed.

A GPU finishes a small net's step sooner than the host has named its hundreds of operations. Named
once, as a CUDA graph, they are started with one word. Mixing stays outside: what a method draws is
drawn on the host, and applied to the batch on the device, before the recorded part begins. So does
the optimiser, whose rate changes.
"""

from collections import Counter
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from mixbench.contract import Sources, Step
from mixbench.declare import Recipe
from mixbench.stages.mixing import SharedStep, StepResult, choose_site

Work = Callable[[], list[Tensor | None]]
PLAIN_STEPS, COMPARED_STEPS = 2, 8  # of each shape: before the recording, and beside it
RTOL, ATOL = 1e-3, 1e-5  # of what was recorded: another order of sums, in half precision
Key = tuple[torch.Size | torch.dtype, ...]


class Gradients(Protocol):
    """Leaves a step's gradients in the parameters, and returns its loss."""

    def __call__(self, step: Step) -> StepResult:
        """Pass a batch forward and backward."""
        ...


class Computed:
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


class Replayed:
    """Gradients replayed from a recording, one for every shape of batch.

    The first steps of a shape are computed; the next ones are both computed and replayed, and what
    differs is refused for good: a loss may depend on numbers of the host, which a recording holds
    fast. Steps that mix inside the model are computed always.

    Parameters
    ----------
    shared
        Model and method of this process alone.
    record
        Records work, without doing it, and returns what does it again with the same tensors.
    say
        Told once of every shape what became of it.
    """

    def __init__(
        self,
        shared: SharedStep,
        recipe: Recipe,
        record: Callable[[Work], Work],
        say: Callable[[str], None],
    ) -> None:
        self._shared = shared
        self._half = recipe.precision == "bfloat16"
        self._parameters = [p for p in shared.parameters() if p.requires_grad]
        self._record, self._say = record, say
        self._computed = Computed(shared, recipe)
        self._seen: Counter[Key] = Counter()
        self._recorded: dict[Key, _Recording | None] = {}

    def __call__(self, step: Step) -> StepResult:
        """Mix a batch, and pass it forward and backward."""
        method = self._shared.method
        if method.sites != ("input",):
            return self._computed(step)
        choose_site(method, step)
        mixed, sources = method.mix(step.images, step)
        number = len(mixed) + step.num_looked_at
        inputs = (mixed, *sources, _rounded_up(step.targets))
        key = tuple(part for tensor in inputs for part in (tensor.shape, tensor.dtype))
        self._seen[key] += 1
        if self._seen[key] > PLAIN_STEPS and key not in self._recorded:
            self._recorded[key] = _Recording(self._work, self._record, step, inputs)
        recording = self._recorded.get(key)
        if recording is None:
            return StepResult(self._take(self._work(step, *inputs)()), number)
        if self._seen[key] > PLAIN_STEPS + COMPARED_STEPS:
            return StepResult(self._take(recording.replay(inputs)), number)
        return StepResult(self._compare(key, recording, step, inputs), number)

    def _compare(
        self, key: Key, recording: "_Recording", step: Step, inputs: tuple[Tensor, ...]
    ) -> Tensor:
        """Compute and replay the same step; keep what was computed."""
        buffers = [*self._shared.buffers()]
        before = [buffer.clone() for buffer in buffers]
        replayed = [t if t is None else t.clone() for t in recording.replay(inputs)]
        replayed += [buffer.clone() for buffer in buffers]
        for buffer, old in zip(buffers, before, strict=True):
            buffer.copy_(old)
        computed = self._work(step, *inputs)()
        if not all(map(_alike, replayed, [*computed, *buffers])):
            self._recorded[key] = None
            self._say(
                "the step is not recorded: replayed, it has other gradients. Its loss depends on "
                "numbers of the host; see the contract of methods."
            )
        elif self._seen[key] == PLAIN_STEPS + COMPARED_STEPS:
            self._say(f"the step is recorded, for batches of {tuple(inputs[0].shape)}")
        return self._take(computed)

    def _work(self, step: Step, *inputs: Tensor) -> Work:
        """Return the work of a step on a mixed batch, its sources and the targets."""
        mixed, index, weight, targets = inputs
        fixed = Step(mixed, targets, rng=step.rng, task=step.task, model=step.model)
        model, method = self._shared.model, self._shared.method
        parameters, half = self._parameters, self._half

        def work() -> list[Tensor | None]:
            # A cast that is remembered would be done once, and not again in a replay.
            with torch.autocast(mixed.device.type, torch.bfloat16, half, cache_enabled=False):
                loss = method.loss(model(mixed), Sources(index, weight), fixed)
            return [loss.detach(), *torch.autograd.grad(loss, parameters, allow_unused=True)]

        return work

    def _take(self, found: list[Tensor | None]) -> Tensor:
        """Give the parameters their gradients; return the loss."""
        loss, *gradients = found
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
        assert loss is not None
        return loss


class _Recording:
    """Recorded work, with the tensors that it reads."""

    def __init__(
        self,
        work: Callable[..., Work],
        record: Callable[[Work], Work],
        step: Step,
        inputs: tuple[Tensor, ...],
    ) -> None:
        self._inputs = [tensor.clone() for tensor in inputs]
        self._again = record(work(step, *self._inputs))

    def replay(self, inputs: tuple[Tensor, ...]) -> list[Tensor | None]:
        """Do the work with other numbers."""
        for own, tensor in zip(self._inputs, inputs, strict=True):
            own.copy_(tensor)
        return self._again()


def _rounded_up(targets: Tensor) -> Tensor:
    """Return targets with more of them, which nothing names: a power of two.

    Methods that draw more images draw as many as it happens; every number would be a shape.
    """
    number = 1 << (len(targets) - 1).bit_length()
    return torch.cat([targets, targets[:1].expand(number - len(targets), *targets.shape[1:])])


def _alike(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return torch.allclose(one, other, rtol=RTOL, atol=ATOL, equal_nan=True)


def cuda_graph(work: Work) -> Work:
    """Record work on the current GPU."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = work()

    def again() -> list[Tensor | None]:
        graph.replay()
        return found

    return again
