"""Batches in the order in which a run asks for them, read ahead where that takes time."""

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

Request = tuple[Tensor, torch.Generator | None]  # which items, and what augments them
Work = tuple[Tensor, Tensor | None]


def batches(
    split: Split,
    requests: Iterable[Request],
    workers: int,
    distributed: Distributed = SINGLE_PROCESS,
) -> Generator[Tensor, None, None]:
    """Yield the images of every request, normalised, on the split's device.

    A batch depends on its request alone, so it is the same with any number of workers. Whoever may
    stop early closes it, which ends the workers: as long as something refers to it, they wait.

    Parameters
    ----------
    workers
        Processes that read files ahead; with none, this process reads. What lies in memory needs
        none.
    distributed
        Each of them reads its rows from files, and has those of the others sent.

    Raises
    ------
    DataError
        If an image cannot be read.
    """
    if not isinstance(split, StreamedSplit):
        for index, rng in requests:
            yield split.read(index, rng)
        return
    asked: list[Tensor | None] = []  # the draws of the batches that are being read

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
        del fetched  # which ends the readers; an exception's traceback would keep it and them


@contextmanager
def _unheard() -> Iterator[None]:
    """Start processes that no stop reaches from their first moment: the stage ends its readers.

    A stop goes to the whole process group; what a reader does on its own comes too late.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Fetch(Dataset[Tensor | DataError]):
    """A split as the loader's processes see it: an item is a whole batch."""

    def __init__(self, split: StreamedSplit) -> None:
        self._split = split

    def __getitem__(self, work: Work) -> Tensor | DataError:
        """Return the stored pixels of a batch, or why there are none."""
        try:
            return self._split.fetch(*work)
        except DataError as error:  # raised here, it would arrive with another process's traceback
            return error
