"""Compute the predictions of a trained model and select the reported scores."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from itertools import zip_longest
from statistics import median
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from mixbench.contract import Backbone, Method, Output, Score, Split, Task, Trained
from mixbench.errors import Diverged
from mixbench.streams import stream_seed
from mixbench.train.distributed import SINGLE_PROCESS, Distributed
from mixbench.train.loading import Request, batches

# With images of 224 pixels, the widest activations of 200 images just fit into host memory.
PIXELS, LARGEST_BATCH = 200 * 224**2, 500
Point = Literal["last", "best_validation", "median_tail"]


class PredictionCache(Protocol):
    """Stores the predictions of finished batches, so that a new attempt continues after them."""

    def kept(self, device: torch.device) -> dict[int, dict[str, Tensor]]:
        """Return the intact predictions of earlier attempts, by batch."""

    def note(self, batch: int, predictions: Mapping[str, Tensor]) -> None:
        """Take a batch's predictions, to be stored from time to time."""

    def flush(self) -> None:
        """Store what was taken."""


@contextmanager
def kept_if_stopped(cache: PredictionCache | None) -> Iterator[None]:
    """Store what a cache has taken if the block ends early; a finished one needs it no more."""
    try:
        yield
    except BaseException:
        if cache:
            cache.flush()
        raise


def predict(
    task: Task,
    model: Backbone,
    method: Method,
    split: Split,
    workers: int = 0,
    distributed: Distributed = SINGLE_PROCESS,
) -> dict[str, Tensor]:
    """Return the predictions of one model; see `predict_each`."""
    return predict_each(task, [Trained(model, method)], split, workers, distributed)[0]


@torch.no_grad()
def predict_each(  # noqa: PLR0913  # a prediction depends on all of these
    task: Task,
    trained: Sequence[Trained],
    split: Split,
    workers: int = 0,
    distributed: Distributed = SINGLE_PROCESS,
    caches: Sequence[PredictionCache] = (),
    report: Callable[[int, int], None] = lambda _done, _of: None,
) -> list[dict[str, Tensor]]:
    """Return each model's predictions for every item of a split, in order, on the CPU.

    Images are read once for all models. Nothing is mixed or augmented. Models and methods are set
    to evaluation mode, and back afterwards. Random draws of the task depend on the batch index
    only, so they are the same for all methods and seeds. In a distributed run each process predicts
    its share, and all return all predictions.

    Parameters
    ----------
    task
        The task whose `predict` computes the predictions.
    trained
        The trained models, with the methods that they were trained with.
    split
        The items to predict.
    workers
        Number of DataLoader workers; with 0, this process reads the images.
    distributed
        The processes that share the work.
    caches
        Predictions of earlier attempts, for each model; only for a run of one process.
    report
        Function that is told the numbers of finished batches and of all batches; may raise to stop.

    Returns
    -------
    predictions
        For each model the tensors of `Task.predict`, by name, with one row for each item.

    Raises
    ------
    Diverged
        If a weight of a model is not finite, or a prediction is NaN.
    """
    number = len(split)
    chunks = distributed.share_of(number).split(batch_size(task))
    device = next(trained[0].model.parameters()).device
    passes = [
        _Pass(one, cache.kept(device) if cache else {}, cache)
        for one, cache in zip_longest(trained, caches)
    ]
    todo = [n for n in range(len(chunks)) if any(n not in one.found for one in passes)]
    asked = (Request(chunks[n], None) for n in todo)
    with ExitStack() as stack:
        for one in passes:
            stack.enter_context(one.evaluating())
        images = stack.enter_context(closing(batches(split, asked, workers)))
        stack.enter_context(torch.random.fork_rng())
        for count, (n, batch) in enumerate(zip(todo, images, strict=True), 1):
            targets = split.targets[chunks[n]].to(batch.device)
            for one in passes:
                one.predict(task, n, batch, targets)
            report(len(chunks) - len(todo) + count, len(chunks))
    every, predictions = range(len(chunks)), []
    for one in passes:
        predictions.append({
            name: distributed.gather(torch.cat([one.found[n][name] for n in every]))[:number].cpu()
            for name in one.found[0]
        })
        one.found.clear()  # logits of ImageNet are 200 MB for each model
    return predictions


class _Pass(NamedTuple):
    """One model in a pass over a split that several models share.

    Attributes
    ----------
    trained
        The model and its method.
    found
        Its predictions, by batch.
    cache
        Takes its predictions; None if they are not to be stored.
    """

    trained: Trained
    found: dict[int, dict[str, Tensor]]
    cache: PredictionCache | None

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Set the model to evaluation mode, and back at the exit; if it is stopped, store."""
        model, method = self.trained
        if not all(torch.stack([p.isfinite().all() for p in model.parameters()]).tolist()):
            raise Diverged("A weight of the model is not finite.")
        modes = model.training, method.training
        model.eval()
        method.eval()
        try:
            with kept_if_stopped(self.cache):
                yield
        finally:
            model.train(modes[0])
            method.train(modes[1])

    def predict(self, task: Task, batch: int, images: Tensor, targets: Tensor) -> None:
        """Compute the predictions for a batch, unless an earlier attempt did."""
        if batch in self.found:
            return
        model, method = self.trained

        def reading(output: Output) -> Tensor:
            # NaN would count as the first class, or as no detection.
            return _check_numbers(method.predict(output), "The model's output")

        torch.manual_seed(stream_seed(0, "evaluate", batch))
        self.found[batch] = task.predict(model, reading, images, targets)
        for name, tensor in self.found[batch].items():
            _check_numbers(tensor, f"The prediction {name}")
        if self.cache:
            self.cache.note(batch, self.found[batch])


def batch_size(task: Task) -> int:
    """Return the number of items per batch in evaluation: fewer if the images are large."""
    height, width = task.test_size
    return task.evaluation_batch or max(1, min(PIXELS // (height * width), LARGEST_BATCH))


def _check_numbers(tensor: Tensor, name: str) -> Tensor:
    """Return a tensor; raise an error if it contains NaN."""
    if tensor.is_floating_point() and bool(tensor.isnan().any()):
        raise Diverged(f"{name} is NaN.")
    return tensor


def at_points(
    scores: Mapping[int, Mapping[str, Score]], best: int | None, tail: Sequence[int]
) -> dict[Point, dict[str, Score]]:
    """Return every metric at the reported points of training.

    Parameters
    ----------
    scores
        Scores by epoch, then by metric.
    best
        The epoch with the best validation score; None if there is none.
    tail
        The last epochs in ascending order; the final one is the end of training.

    Returns
    -------
    points
        Scores by point (``last``, which is ranked, ``best_validation`` and ``median_tail``), then
        by metric. Only ``last`` if only one epoch is scored.
    """
    last = scores[tail[-1]]
    points: dict[Point, dict[str, Score]] = {"last": dict(last)}
    if best is not None:
        points["best_validation"] = dict(scores[best])
    if best is not None or len(tail) > 1:
        points["median_tail"] = {
            name: Score(median(scores[epoch][name].value for epoch in tail)) for name in last
        }
    return points
