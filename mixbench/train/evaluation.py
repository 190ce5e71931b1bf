"""Predictions of a trained model, and what the reported numbers are taken at."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from statistics import median
from time import perf_counter
from typing import Literal, Protocol

import torch
from torch import Tensor

from mixbench.contract import Backbone, Method, Score, Split, Task
from mixbench.streams import stream_seed
from mixbench.train.distributed import SINGLE_PROCESS, Distributed
from mixbench.train.loading import batches

Point = Literal["last", "best_validation", "median_tail"]


class PredictionCache(Protocol):
    """Where a prediction leaves its batches, so that another attempt goes on after the last."""

    def kept(self, device: torch.device) -> dict[int, dict[str, Tensor]]:
        """Return the predictions that an earlier attempt left whole, by their batches."""

    def note(self, batch: int, predictions: Mapping[str, Tensor], since: float) -> None:
        """Keep a batch's predictions if they took long to make, since a time of `perf_counter`."""

    def tell(self, done: int, of: int) -> None:
        """Show how many of so many batches are done; may raise to stop."""


@torch.no_grad()
def predict(  # noqa: PLR0913  # all that a prediction depends on
    task: Task,
    model: Backbone,
    method: Method,
    split: Split,
    workers: int = 0,
    distributed: Distributed = SINGLE_PROCESS,
    cache: PredictionCache | None = None,
) -> dict[str, Tensor]:
    """Return the predictions for every item of a split, in order, on the CPU.

    Nothing is mixed or augmented; model and method keep the mode they are in. What a task draws is
    a matter of the batch alone, the same for all methods and seeds. Of several ranks, each predicts
    its share, and all return the whole.

    Parameters
    ----------
    cache
        Of one process alone.
    """
    modes = model.training, method.training
    model.eval()
    method.eval()
    number = len(split)
    even = (
        -(-number // distributed.world_size) * distributed.world_size
    )  # every rank predicts as many
    own = torch.arange(even).clamp_max(number - 1)[distributed.rows]
    chunks = own.split(task.evaluation_batch)
    parts = cache.kept(next(model.parameters()).device) if cache else {}
    todo = [n for n in range(len(chunks)) if n not in parts]
    asked = ((chunks[n], None) for n in todo)
    with closing(batches(split, asked, workers)) as images, torch.random.fork_rng():
        for n, batch in zip(todo, images, strict=True):
            torch.manual_seed(stream_seed(0, "evaluate", n))
            clock = perf_counter()
            targets = split.targets[chunks[n]].to(batch.device)
            parts[n] = task.predict(model, method.predict, batch, targets)
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


def at_points(
    scores: Mapping[int, Mapping[str, Score]], best: int | None, tail: Sequence[int]
) -> dict[Point, dict[str, Score]]:
    """Return every metric at the points of training that are reported.

    Parameters
    ----------
    scores
        By epoch, then by metric.
    best
        The epoch that was best on the validation part; None where only the last one is scored.
    tail
        The last epochs; the last of them is the end of training.

    Returns
    -------
    points
        ``last`` (which is ranked), ``best_validation`` and ``median_tail``, then by metric.
    """
    last = scores[tail[-1]]
    if best is None:
        return {"last": dict(last)}
    medians = {name: Score(median(scores[epoch][name].value for epoch in tail)) for name in last}
    return {"last": dict(last), "best_validation": dict(scores[best]), "median_tail": medians}
