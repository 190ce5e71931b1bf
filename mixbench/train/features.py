"""Features of images by a frozen encoder: shared by all processes, and kept if they are stopped."""

from collections.abc import Callable
from contextlib import closing
from itertools import count

import torch
from torch import Tensor

from mixbench.contract import Split
from mixbench.train.distributed import SINGLE_PROCESS, Distributed
from mixbench.train.evaluation import PredictionCache, kept_if_stopped
from mixbench.train.loading import Request, batches

CHUNK = 200  # images per call of the encoder


class Encoding:
    """Computes the features of the images of splits.

    Parameters
    ----------
    cache_of
        Function of a name that returns where features are kept until the stage is finished; None
        to keep none.
    workers
        Number of DataLoader workers that read images ahead.
    distributed
        The processes, each of which encodes its share of the images.
    report
        Function that is told the numbers of finished calls of the encoder and of all calls; may
        raise to stop.
    """

    def __init__(
        self,
        cache_of: Callable[[str], PredictionCache] | None = None,
        workers: int = 0,
        distributed: Distributed = SINGLE_PROCESS,
        report: Callable[[int, int], None] = lambda _done, _of: None,
    ) -> None:
        self._cache_of, self._workers = cache_of, workers
        self._distributed, self._report = distributed, report
        self._numbers = count()

    @torch.no_grad()
    def __call__(self, encode: Callable[[Tensor], Tensor], images: Split) -> Tensor:
        """Return the features of all images of a split, (M, D), on the split's device.

        Parameters
        ----------
        encode
            Function from images, (B, C, H, W), to features, (B, D).
        images
            The images; several calls must be made in the same order in every attempt.
        """
        ranks, number = self._distributed, len(images)
        chunks = ranks.share_of(number).split(CHUNK)
        name = f"{next(self._numbers)}-{ranks.rank}-of-{ranks.world_size}"
        cache = self._cache_of(name) if self._cache_of else None
        found = {n: f["features"] for n, f in cache.kept(CPU).items()} if cache else {}
        note = cache.note if cache else lambda *_: None
        asked = (Request(chunk, None) for n, chunk in enumerate(chunks) if n not in found)
        with closing(batches(images, asked, self._workers)) as reading, kept_if_stopped(cache):
            for n in range(len(chunks)):  # all of them, because processes report together
                if n not in found:
                    found[n] = encode(next(reading)).cpu()
                    note(n, {"features": found[n]})
                self._report(n + 1, len(chunks))
        share = torch.cat([found[n] for n in range(len(chunks))])
        return ranks.gather(share.to(getattr(images, "device", CPU)))[:number]


CPU = torch.device("cpu")
