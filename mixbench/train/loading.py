"""Load the batches that a run requests, in order, with DataLoader workers where files are read."""

import signal
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mixbench.contract import Split
from mixbench.errors import DataError
from mixbench.train.distributed import SINGLE_PROCESS, Distributed
from mixbench.vision.images.splits import StreamedSplit

Request = tuple[Tensor, torch.Generator | None]  # the items, and the generator that augments them
Work = tuple[Tensor, Tensor | None]


def batches(
    split: Split,
    requests: Iterable[Request],
    workers: int,
    distributed: Distributed = SINGLE_PROCESS,
) -> Generator[Tensor, None, None]:
    """Yield the images of every request, normalised, on the split's device.

    A batch depends on its request only, so it is the same with any number of workers. Close the
    generator if you stop early: the workers run as long as it is referenced.

    Parameters
    ----------
    split
        The split to read from.
    requests
        Pairs of item positions, (B,) int64, and the generator of their augmentation, or None for no
        augmentation.
    workers
        Number of DataLoader workers that read files ahead; with 0, this process reads them. Splits
        in memory use none.
    distributed
        The processes of a distributed run. Each reads its own rows from files and receives the rows
        of the others.

    Yields
    ------
    images
        A batch of shape (B, C, H, W).

    Raises
    ------
    DataError
        If an image cannot be read.
    """
    if not isinstance(split, StreamedSplit):
        for index, rng in requests:
            yield split.read(index, rng)
        return
    asked: list[Tensor | None] = []  # augmentation draws of the batches in flight

    def work() -> Iterator[Work]:
        for index, rng in requests:
            draws = split.draw(len(index), rng)
            asked.append(draws)
            yield index[distributed.rows], None if draws is None else draws[distributed.rows]

    fetch = Fetch(split)
    fetched: Iterable[Tensor | DataError] = map(fetch.__getitem__, work())
    if workers:
        pinned = split.device.type == "cuda"
        loader = DataLoader(
            fetch, batch_size=None, sampler=work(), num_workers=workers, pin_memory=pinned
        )
        with _unheard():
            fetched = iter(loader)
    try:
        for images in fetched:
            if isinstance(images, DataError):
                raise images
            whole = distributed.gather(images.to(split.device, non_blocking=True))
            yield split.finish(whole, asked.pop(0))
    finally:
        del fetched  # ends the workers, which a traceback would keep alive


@contextmanager
def _unheard() -> Iterator[None]:
    """Block SIGTERM and SIGINT in DataLoader workers from their start; the stage ends them itself.

    A stop request goes to the whole process group. A handler that a worker installs comes too late.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Fetch(Dataset[Tensor | DataError]):
    """A dataset for the DataLoader, each item of which is a whole batch of a split."""

    def __init__(self, split: StreamedSplit) -> None:
        self._split = split

    def __getitem__(self, work: Work) -> Tensor | DataError:
        """Return the stored pixels of a batch, or the error that prevented reading them."""
        try:
            return self._split.fetch(*work)
        except DataError as error:  # if raised here, it would carry the worker's traceback
            return error
