"""Steps whose work is named once, and then done again with other numbers.

A recording holds the tensors that its work reads and those that it leaves behind; to replay it is
to fill the former and to do the work. Mixing stays outside: at the input it comes before the work,
inside the model it cuts the work in three: up to the mix, from there to the loss and back to the
mix, and back to the input.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

from mixbench.contract import Sources, Step
from mixbench.errors import MixbenchError
from mixbench.train.mixing import SharedStep, hooked

ReplayFn = Callable[[], None]
Capture = Callable[[], AbstractContextManager[ReplayFn]]
LossAndGrads = list[
    Tensor | None
]  # the loss, and its gradients; None where it does not depend on one


class GraphBackend(Protocol):
    """Records what is done, so that it can be done again with the same tensors."""

    def check_capturable(self) -> AbstractContextManager[ReplayFn]:
        """Let work be done as ever; raise a `RuntimeError` if it could not be recorded."""
        ...

    def capture(self) -> AbstractContextManager[ReplayFn]:
        """Record work; yield what does it again."""
        ...


class CudaGraphs:
    """Records work on the current GPU as CUDA graphs.

    They share their memory: one is replayed at a time, and what it leaves is used before the next.
    The stream on which they are captured is theirs alone, and so is what libraries keep for it.
    """

    def __init__(self) -> None:
        self._pool, self._stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream()
        self._graphs: list[torch.cuda.CUDAGraph] = []  # with the last of them the pool would go

    @contextmanager
    def check_capturable(self) -> Iterator[ReplayFn]:
        """Do the work, and see whether the host waits for the device, which ends a capture.

        A failed capture leaves the device's memory in disorder, so it is not tried.

        Raises
        ------
        RuntimeError
            If it does.
        """
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            before = torch.cuda.get_sync_debug_mode()
            torch.cuda.set_sync_debug_mode("warn")
            try:
                yield lambda: None
            finally:
                torch.cuda.set_sync_debug_mode(before)
        for warning in caught:
            if "synchronizing CUDA operation" in str(warning.message):
                raise RuntimeError(f"{warning.message} ({warning.filename}:{warning.lineno})")

    @contextmanager
    def capture(self) -> Iterator[ReplayFn]:
        """Record work as a graph."""
        graph = torch.cuda.CUDAGraph()
        self._graphs.append(graph)
        # Not "global": a loader's thread may ask for pinned memory meanwhile.
        mode = "thread_local"
        with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode=mode):
            yield graph.replay


class StepComputation:
    """What all steps of a run have in common.

    Parameters
    ----------
    half
        Whether a model computes in bfloat16 where that is safe.
    """

    def __init__(self, shared: SharedStep, *, half: bool) -> None:
        self.model, self.method = shared.model, shared.method
        self.parameters = [p for p in shared.parameters() if p.requires_grad]
        self._half = half

    def precision(self, device: torch.device) -> AbstractContextManager[object]:
        """Return the context of a forward pass."""
        # A cast that is remembered would be done once, and not again in a replay.
        return torch.autocast(device.type, torch.bfloat16, self._half, cache_enabled=False)

    def at_input(self, step: Step, inputs: Sequence[Tensor]) -> LossAndGrads:
        """Return the loss of a mixed batch, given with its sources and targets, and gradients."""
        mixed, index, weight, targets = inputs
        with self.precision(mixed.device):
            output = self.model(mixed)
            loss = self.method.loss(output, Sources(index, weight), _fixed(step, mixed, targets))
        return [loss.detach(), *torch.autograd.grad(loss, self.parameters, allow_unused=True)]


class InputMixGraph:
    """A recorded step that mixes at the input.

    Parameters
    ----------
    inputs
        The mixed batch, its sources and the targets.
    """

    def __init__(
        self, work: StepComputation, capture: Capture, step: Step, inputs: Sequence[Tensor]
    ) -> None:
        self._inputs = [tensor.clone() for tensor in inputs]
        with capture() as self._replay:
            self._loss_and_grads = work.at_input(step, self._inputs)

    def replay(self, step: Step, inputs: Sequence[Tensor]) -> LossAndGrads:  # noqa: ARG002  # as inside
        """Return loss and gradients of other inputs; they are valid until the next replay."""
        _fill(self._inputs, inputs)
        self._replay()
        return self._loss_and_grads


class HiddenMixGraph:
    """A recorded step that mixes inside the model.

    Parameters
    ----------
    inputs
        The batch and the targets.
    """

    def __init__(
        self, work: StepComputation, capture: Capture, step: Step, inputs: Sequence[Tensor]
    ) -> None:
        self._work = work
        self._inputs = [tensor.clone() for tensor in inputs]
        images, targets = self._inputs
        activations = images

        def cut(_module: nn.Module, _inputs: tuple[Tensor, ...], found: Tensor) -> Tensor:
            nonlocal activations
            parts.close()
            activations = found
            # While it is recorded there are no numbers; of which shapes a mix is, zeros tell.
            mixed, sources = work.method.mix(torch.zeros_like(found), step)
            self._mixed = mixed.detach().clone().requires_grad_()
            self._sources = Sources(*(tensor.clone() for tensor in _two(sources)))
            self._onward = parts.enter_context(capture())
            return self._mixed

        with work.precision(images.device), ExitStack() as parts:
            self._to_the_mix = parts.enter_context(capture())
            with hooked(work.model, step.site, cut):
                output = work.model.forward(images)
            loss = work.method.loss(output, self._sources, _fixed(step, images, targets))
            self._loss = loss.detach()
            wanted = (self._mixed, *work.parameters)
            self._of_mixed, *self._after = torch.autograd.grad(loss, wanted, allow_unused=True)
        self._activations, self._of_own = activations.detach(), torch.zeros_like(activations)
        with capture() as self._back:
            self._before = torch.autograd.grad(
                activations, work.parameters, self._of_own, allow_unused=True
            )

    def replay(self, step: Step, inputs: Sequence[Tensor]) -> LossAndGrads:
        """Return loss and gradients of another batch; they are valid until the next replay.

        Raises
        ------
        MixbenchError
            If the method makes its mixes of another number of items than before.
        """
        _fill(self._inputs, inputs)
        self._to_the_mix()
        own = self._activations.detach().requires_grad_()
        with self._work.precision(own.device):
            mixed, sources = self._work.method.mix(own, step)
        sources = _two(sources)
        if (mixed.shape, sources.index.shape) != (self._mixed.shape, self._sources.index.shape):
            raise MixbenchError(
                f"{type(self._work.method).__name__} makes mixes of {sources.index.shape[1]} items "
                f"after some of {self._sources.index.shape[1]}: train it without --record."
            )
        with torch.no_grad():
            _fill([self._mixed, *self._sources], [mixed, *sources])
        self._onward()
        of_own, *direct = torch.autograd.grad(
            mixed, (own, *self._work.parameters), self._of_mixed, allow_unused=True
        )
        _fill([self._of_own], [of_own])
        self._back()
        return [self._loss, *map(_sum, self._before, direct, self._after)]


def _fixed(step: Step, images: Tensor, targets: Tensor) -> Step:
    """Return what a method sees of a step when it computes the loss."""
    return Step(images, targets, rng=step.rng, task=step.task, model=step.model)


def _fill(own: Sequence[Tensor], others: Sequence[Tensor]) -> None:
    for tensor, other in zip(own, others, strict=True):
        tensor.copy_(other)


def _two(sources: Sources) -> Sources:
    """Return the sources of items that were not mixed as of pairs, like those of other steps."""
    index, weight = sources
    if index.shape[1] > 1:
        return sources
    return Sources(index.expand(-1, 2), torch.cat([weight, torch.zeros_like(weight)], 1))


def _sum(*parts: Tensor | None) -> Tensor | None:
    """Return the sum of what is there; None if nothing is."""
    there = [part for part in parts if part is not None]
    return sum(there[1:], there[0]) if there else None
