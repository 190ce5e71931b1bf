"""Compute the predictions of a trained model and select the reported scores."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from statistics import median
from time import perf_counter
from typing import Literal, Protocol

import torch
from torch import Tensor

from mixbench.contract import Backbone, Method, Output, Score, Split, Task
from mixbench.errors import Diverged
from mixbench.streams import stream_seed
from mixbench.train.distributed import SINGLE_PROCESS, Distributed
from mixbench.train.loading import Request, batches

Point = Literal["last", "best_validation", "median_tail"]


class PredictionCache(Protocol):
    """Stores the predictions of finished batches, so that a new attempt continues after them."""

    def kept(self, device: torch.device) -> dict[int, dict[str, Tensor]]:
        """Return the intact predictions of earlier attempts, by batch."""

    def note(self, batch: int, predictions: Mapping[str, Tensor], since: float) -> None:
        """Store a batch's predictions if they took long; `since` is a `perf_counter` time."""

    def tell(self, done: int, of: int) -> None:
        """Report that `done` of `of` batches are finished; may raise to stop."""


@torch.no_grad()
def predict(  # noqa: PLR0913  # a prediction depends on all of these
    task: Task,
    model: Backbone,
    method: Method,
    split: Split,
    workers: int = 0,
    distributed: Distributed = SINGLE_PROCESS,
    cache: PredictionCache | None = None,
) -> dict[str, Tensor]:
    """Return the predictions for every item of a split, in order, on the CPU.

    Nothing is mixed or augmented. Model and method are set to evaluation mode, and back afterwards.
    Random draws of the task depend on the batch index only, so they are the same for all methods
    and seeds. In a distributed run each process predicts its share, and all return all predictions.

    Parameters
    ----------
    task
        The task whose `predict` computes the predictions.
    model
        The trained model.
    method
        The method that the model was trained with.
    split
        The items to predict.
    workers
        Number of DataLoader workers; with 0, this process reads the images.
    distributed
        The processes that share the work.
    cache
        Predictions of earlier attempts; only for a run of one process.

    Returns
    -------
    predictions
        The tensors of `Task.predict`, by name, with one row for each item.

    Raises
    ------
    Diverged
        If a weight of the model is not finite, or a prediction is NaN.
    """
    if not all(torch.stack([p.isfinite().all() for p in model.parameters()]).tolist()):
        raise Diverged("A weight of the model is not finite.")

    def reading(output: Output) -> Tensor:
        # NaN would count as the first class, or as no detection.
        return _check_numbers(method.predict(output), "The model's output")

    modes = model.training, method.training
    model.eval()
    method.eval()
    number = len(split)
    even = (
        -(-number // distributed.world_size) * distributed.world_size
    )  # every process predicts the same number of items
    own = torch.arange(even).clamp_max(number - 1)[distributed.rows]
    chunks = own.split(task.evaluation_batch)
    parts = cache.kept(next(model.parameters()).device) if cache else {}
    todo = [n for n in range(len(chunks)) if n not in parts]
    asked = (Request(chunks[n], None) for n in todo)
    with closing(batches(split, asked, workers)) as images, torch.random.fork_rng():
        for n, batch in zip(todo, images, strict=True):
            torch.manual_seed(stream_seed(0, "evaluate", n))
            clock = perf_counter()
            targets = split.targets[chunks[n]].to(batch.device)
            parts[n] = task.predict(model, reading, batch, targets)
            for name, tensor in parts[n].items():
                _check_numbers(tensor, f"The prediction {name}")
            if cache:
                cache.note(n, parts[n], clock)
                cache.tell(len(parts), len(chunks))
    model.train(modes[0])
    method.train(modes[1])
    ordered = [parts[n] for n in range(len(chunks))]
    return {
        name: distributed.gather(torch.cat([part[name] for part in ordered]))[:number].cpu()
        for name in ordered[0]
    }


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
        The epoch with the best validation score; None if only the last epoch is scored.
    tail
        The last epochs in ascending order; the final one is the end of training.

    Returns
    -------
    points
        Scores by point (``last``, which is ranked, ``best_validation`` and ``median_tail``), then
        by metric. Only ``last`` if `best` is None.
    """
    last = scores[tail[-1]]
    if best is None:
        return {"last": dict(last)}
    medians = {name: Score(median(scores[epoch][name].value for epoch in tail)) for name in last}
    return {"last": dict(last), "best_validation": dict(scores[best]), "median_tail": medians}
