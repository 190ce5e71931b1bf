"""Predictions of a trained model, and what the reported numbers are taken at."""

from collections.abc import Mapping, Sequence
from statistics import median

import torch
from torch import Tensor, nn

from mixbench.contract import Method, Score, Split, Task
from mixbench.images.loading import batches
from mixbench.ranks import ALONE, Ranks

BATCH = 200  # images of 224 pixels of which a processor's memory holds the widest activations


@torch.no_grad()
def predict(
    task: Task,
    model: nn.Module,
    method: Method,
    split: Split,
    workers: int = 0,
    ranks: Ranks = ALONE,
) -> dict[str, Tensor]:
    """Return the predictions for every item of a split, in order, on the CPU.

    Nothing is mixed or augmented; model and method keep the mode they are in. Of several ranks,
    each predicts its share, and all return the whole.
    """
    modes = model.training, method.training
    model.eval()
    method.eval()
    number = len(split)
    even = -(-number // ranks.number) * ranks.number  # every rank predicts as many
    own = torch.arange(even).clamp_max(number - 1)[ranks.rows]
    chunks = own.split(BATCH)
    images = batches(split, ((index, None) for index in chunks), workers)
    parts = [
        task.predict(model, method.predict, batch, split.targets[index].to(batch.device))
        for index, batch in zip(chunks, images, strict=True)
    ]
    model.train(modes[0])
    method.train(modes[1])
    return {
        name: ranks.gather(torch.cat([part[name] for part in parts]))[:number].cpu()
        for name in parts[0]
    }


def at_points(
    scores: Mapping[int, Mapping[str, Score]], best: int, tail: Sequence[int]
) -> dict[str, dict[str, Score]]:
    """Return every metric at the points of training that are reported.

    Parameters
    ----------
    scores
        By epoch, then by metric.
    best
        The epoch that was best on the validation part.
    tail
        The last epochs; the last of them is the end of training.

    Returns
    -------
    points
        ``last`` (which is ranked), ``best_validation`` and ``median_tail``, then by metric.
    """
    last = scores[tail[-1]]
    medians = {name: Score(median(scores[epoch][name].value for epoch in tail)) for name in last}
    return {"last": dict(last), "best_validation": dict(scores[best]), "median_tail": medians}
