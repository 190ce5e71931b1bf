"""Batches in the order in which a run asks for them, read ahead where that takes time."""

import signal
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mixbench.contract import Split
from mixbench.errors import DataError
from mixbench.images.splits import ImageSplit, StreamedSplit
from mixbench.ranks import ALONE, Ranks

Request = tuple[Tensor, torch.Generator | None]  # which items, and what augments them
Work = tuple[Tensor, Tensor | None]  # items or their pixels, and what augments them


def batches(
    split: Split,
    requests: Iterable[Request],
    workers: int,
    ranks: Ranks = ALONE,
    *,
    compiled: bool = False,
) -> Generator[Tensor, None, None]:
    """Yield the images of every request, normalised, on the split's device.

    A batch depends on its request alone, so it is the same with any number of workers. Whoever may
    stop early closes it, which ends the workers: as long as something refers to it, they wait.

    Parameters
    ----------
    workers
        Processes that read files ahead; with none, this process reads. What lies in memory needs
        none.
    ranks
        Each of them reads its rows from files, and has those of the others sent.
    compiled
        Whether colours and normalisation are one pass over the images, by torch's compiler; a sum
        may be rounded otherwise.

    Raises
    ------
    DataError
        If an image cannot be read.
    """
    if not isinstance(split, ImageSplit):
        for index, rng in requests:
            yield split.read(index, rng)
        return
    finish = torch.compile(split.finish) if compiled else split.finish
    streamed = isinstance(split, StreamedSplit)
    fetched = _streamed(split, requests, workers, ranks) if streamed else _at_once(split, requests)
    with closing(fetched):
        for images, draws in fetched:
            yield finish(images, draws)


def _at_once(split: ImageSplit, requests: Iterable[Request]) -> Generator[Work, None, None]:
    """Yield stored pixels of a part in memory, and their draws."""
    for index, rng in requests:
        draws = split.draw(len(index), rng)
        yield split.fetch(index, draws), draws


def _streamed(
    split: ImageSplit, requests: Iterable[Request], workers: int, ranks: Ranks
) -> Generator[Work, None, None]:
    """Yield stored pixels that are read from files ahead, and their draws."""
    asked: list[Tensor | None] = []  # the draws of the batches that are being read

    def work() -> Iterator[Work]:
        for index, rng in requests:
            draws = split.draw(len(index), rng)
            asked.append(draws)
            yield index[ranks.rows], None if draws is None else draws[ranks.rows]

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
            yield ranks.gather(images.to(split.device, non_blocking=True)), asked.pop(0)
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

    def __init__(self, split: ImageSplit) -> None:
        self._split = split

    def __getitem__(self, work: Work) -> Tensor | DataError:
        """Return the stored pixels of a batch, or why there are none."""
        try:
            return self._split.fetch(*work)
        except DataError as error:  # raised here, it would arrive with another process's traceback
            return error
