"""CUDA graphs of training steps: capture the work of a step once and replay it on new inputs.

A captured step holds the tensors that its work reads and those that it writes. To replay it, copy
new values into the former and run the work again. Mixing is not captured. At the input, it runs
before the captured work. Inside the model, it divides the work into three graphs: forward to the
site, from the site to the loss and backward to the site, and backward from the site to the input.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

from mixbench.contract import Sources, Step
from mixbench.errors import MixbenchError
from mixbench.train.mixing import SharedStep, acting, hooked, mix

ReplayFn = Callable[[], None]
Capture = Callable[[], AbstractContextManager[ReplayFn]]
LossAndGrads = list[
    Tensor | None
]  # the loss, then a gradient per parameter; None where the loss does not depend on it


class GraphBackend(Protocol):
    """Captures work so that it can be replayed on the same tensors."""

    def check_capturable(self) -> AbstractContextManager[ReplayFn]:
        """Run the work eagerly; raise a `RuntimeError` if it cannot be captured."""
        ...

    def capture(self) -> AbstractContextManager[ReplayFn]:
        """Capture the work; yield a function that replays it."""
        ...


class CudaGraphs:
    """Captures work on the current GPU as CUDA graphs.

    All graphs share one memory pool: only one is replayed at a time, and its results are used
    before the next replay. They are captured on a separate stream, so that buffers which libraries
    allocate per stream are not shared with other work.
    """

    def __init__(self) -> None:
        self._pool, self._stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream()
        self._graphs: list[torch.cuda.CUDAGraph] = []  # keeps the memory pool alive

    @contextmanager
    def check_capturable(self) -> Iterator[ReplayFn]:
        """Run the work and check that the host never waits for the device, which breaks a capture.

        A failed capture leaves the allocator of the device in an invalid state, so none is tried.

        Raises
        ------
        RuntimeError
            If the host waits for the device.
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
        """Capture the work as a CUDA graph; yield the function that replays it."""
        graph = torch.cuda.CUDAGraph()
        self._graphs.append(graph)
        # Not "global": a DataLoader thread may allocate pinned memory during the capture.
        mode = "thread_local"
        with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode=mode):
            yield graph.replay


class StepComputation:
    """Compute losses and gradients, for all steps of a run.

    Parameters
    ----------
    shared
        The model and the method.
    half
        Whether to run the forward pass in bfloat16 autocast.
    """

    def __init__(self, shared: SharedStep, *, half: bool) -> None:
        self.model, self.method = shared.model, shared.method
        self.parameters = [p for p in shared.parameters() if p.requires_grad]
        self._half = half

    def precision(self, device: torch.device) -> AbstractContextManager[object]:
        """Return the autocast context of a forward pass."""
        # A cached cast would be computed during the capture only, not in each replay.
        return torch.autocast(device.type, torch.bfloat16, self._half, cache_enabled=False)

    def at_input(
        self, step: Step, inputs: Sequence[Tensor], images: Tensor | None = None
    ) -> LossAndGrads:
        """Return the loss and the gradients of a batch that was mixed at the input.

        Parameters
        ----------
        step
            The training step that the batch belongs to.
        inputs
            Mixed images, the tensors of the sources and targets.
        images
            Images of the unmixed batch; None if the work is captured.
        """
        mixed, *tensors, targets = inputs
        with self.precision(mixed.device):
            output = self.model(mixed)
            method = acting(self.method, step)
            loss = method.loss(output, Sources.of(*tensors), _fixed(step, images, targets))
        return [loss.detach(), *torch.autograd.grad(loss, self.parameters, allow_unused=True)]


class InputMixGraph:
    """A captured step that mixes at the input.

    Parameters
    ----------
    work
        Computes the loss and the gradients.
    capture
        Captures work as a graph.
    step
        The step to capture.
    inputs
        Mixed images, the tensors of the sources and targets.
    """

    def __init__(
        self, work: StepComputation, capture: Capture, step: Step, inputs: Sequence[Tensor]
    ) -> None:
        self._inputs = [tensor.clone() for tensor in inputs]
        with capture() as self._replay:
            self._loss_and_grads = work.at_input(step, self._inputs)

    def replay(self, step: Step, inputs: Sequence[Tensor]) -> LossAndGrads:  # noqa: ARG002  # as HiddenMixGraph
        """Return loss and gradients for new inputs; they are valid until the next replay."""
        _fill(self._inputs, inputs)
        self._replay()
        return self._loss_and_grads


class HiddenMixGraph:
    """A captured step that mixes inside the model.

    Parameters
    ----------
    work
        Holds the model, the method and the parameters.
    capture
        Captures work as a graph.
    step
        The step to capture, whose site is a block of the model.
    inputs
        Unmixed images and targets.
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
            # During the capture activations have no values: mix zeros to get the shapes.
            mixed, sources = mix(work.method, torch.zeros_like(found), step)
            self._mixed = mixed.detach().clone().requires_grad_()
            self._sources = Sources.of(*(tensor.clone() for tensor in _two(sources).tensors))
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
        """Return loss and gradients for a new batch; they are valid until the next replay.

        Raises
        ------
        MixbenchError
            If the method mixes another number of items than in the captured step.
        """
        _fill(self._inputs, inputs)
        self._to_the_mix()
        own = self._activations.detach().requires_grad_()
        with self._work.precision(own.device):
            mixed, sources = mix(self._work.method, own, step)
        sources = _two(sources)
        if (mixed.shape, sources.index.shape) != (self._mixed.shape, self._sources.index.shape):
            raise MixbenchError(
                f"{type(self._work.method).__name__} must mix the same number of items in every "
                f"step under --cuda-graphs (got {sources.index.shape[1]} after "
                f"{self._sources.index.shape[1]}). Run the command again without --cuda-graphs."
            )
        with torch.no_grad():
            _fill([self._mixed, *self._sources.tensors], [mixed, *sources.tensors])
        self._onward()
        of_own, *direct = torch.autograd.grad(
            mixed, (own, *self._work.parameters), self._of_mixed, allow_unused=True
        )
        _fill([self._of_own], [of_own])
        self._back()
        return [self._loss, *map(_sum, self._before, direct, self._after)]


class _WithoutImages(Step):
    """A step whose images are not read again when it is replayed."""

    @property
    def images(self) -> Tensor:
        """Raise an error, so that the step is not captured."""
        raise RuntimeError("the loss reads Step.images; it must get them in Sources.more")

    @images.setter
    def images(self, images: Tensor) -> None:
        """Forget the images."""


def _fixed(step: Step, images: Tensor | None, targets: Tensor) -> Step:
    """Return a step without site and split, as `Method.loss` sees it in a graph."""
    kind, there = (_WithoutImages, targets) if images is None else (Step, images)
    fixed = kind(there, targets, rng=step.rng, task=step.task, model=step.model, loss=step.loss)
    fixed.teachers, fixed.ema = step.teachers, step.ema
    return fixed


def _fill(own: Sequence[Tensor], others: Sequence[Tensor]) -> None:
    for tensor, other in zip(own, others, strict=True):
        tensor.copy_(other)


def _two(sources: Sources) -> Sources:
    """Return the sources of unmixed items as pairs, so that all steps have the same shapes."""
    index, weight, more = sources
    if index.shape[1] > 1:
        return sources
    return Sources(index.expand(-1, 2), torch.cat([weight, torch.zeros_like(weight)], 1), more)


def _sum(*parts: Tensor | None) -> Tensor | None:
    """Return the sum of the parts that are not None, or None if there are none."""
    there = [part for part in parts if part is not None]
    return sum(there[1:], there[0]) if there else None
