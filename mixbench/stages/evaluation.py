"""Predictions of a trained model, and what the reported numbers are taken at."""

from collections.abc import Mapping, Sequence
from statistics import median

import torch
from torch import Tensor, nn

from mixbench.contract import Method, Score, Split

BATCH = 500


@torch.no_grad()
def predict(model: nn.Module, method: Method, split: Split, device: torch.device) -> Tensor:
    """Return the predictions for every item of a split, in order, float32 on the CPU.

    Nothing is mixed or augmented; model and method keep the mode they are in.
    """
    modes = model.training, method.training
    model.eval()
    method.eval()
    batches = torch.arange(len(split)).split(BATCH)
    outputs = [method.predict(model(split.read(i, None).to(device))).float().cpu() for i in batches]
    model.train(modes[0])
    method.train(modes[1])
    return torch.cat(outputs)


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
