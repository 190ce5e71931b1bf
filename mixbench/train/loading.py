"""Load the batches that a run requests, in order, with DataLoader workers where files are read."""

import signal
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mixbench.contract import Split
from mixbench.errors import DataError
from mixbench.train.distributed import SINGLE_PROCESS, Distributed
from mixbench.vision.images.splits import StreamedSplit

Work = tuple[Tensor, Tensor | None]  # items to read, and their augmentation draws
NONE = torch.empty(0, dtype=torch.int64)


class Request(NamedTuple):
    """The items of a batch.

    Attributes
    ----------
    items : (B,) int64
        Positions of the batch's items.
    rng
        Generator of their augmentation; None for no augmentation.
    drawn : (M,) int64
        Positions of the items that the method draws by class; they follow those of the batch.
    drawn_rng
        Generator of their augmentation.
    replaced : (B,) bool
        Items of the batch whose images nothing uses; files are not read for them. None for none.
    """

    items: Tensor
    rng: torch.Generator | None
    drawn: Tensor = NONE
    drawn_rng: torch.Generator | None = None
    replaced: Tensor | None = None

    def read(self, split: Split) -> Tensor:
        """Return the images from a split in memory."""
        images = split.read(self.items, self.rng)
        if len(self.drawn):
            images = torch.cat([images, split.read(self.drawn, self.drawn_rng)])
        return images

    def all_items(self) -> Tensor:
        """Return the positions of all items, (B + M,)."""
        return torch.cat([self.items, self.drawn])

    def kept(self) -> Tensor:
        """Return the rows whose files are read, in ascending order."""
        everything = torch.arange(len(self.items) + len(self.drawn))
        if self.replaced is None:
            return everything
        return everything[
            ~torch.cat([self.replaced, torch.zeros(len(self.drawn), dtype=torch.bool)])
        ]

    def draws(self, split: StreamedSplit) -> Tensor | None:
        """Return the augmentation draws of all items; None without augmentation."""
        own = split.draw(len(self.items), self.rng)
        drawn = split.draw(len(self.drawn), self.drawn_rng) if len(self.drawn) else None
        return own if own is None or drawn is None else torch.cat([own, drawn])


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
        The items of each batch.
    workers
        Number of DataLoader workers that read files ahead; with 0, this process reads them. Splits
        in memory use none.
    distributed
        The processes of a distributed run. Each reads its own rows from files and receives the rows
        of the others.

    Yields
    ------
    images
        A batch of shape (B + M, C, H, W); rows of replaced images are not meant to be used.

    Raises
    ------
    DataError
        If an image cannot be read.
    """
    if not isinstance(split, StreamedSplit):
        for request in requests:
            yield request.read(split)
        return
    asked: list[tuple[Request, Tensor | None]] = []  # batches in flight, with augmentation draws

    def work() -> Iterator[Work]:
        for request in requests:
            draws, own = request.draws(split), request.kept()[distributed.rows]
            asked.append((request, draws))
            yield request.all_items()[own], None if draws is None else draws[own]

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
            request, draws = asked.pop(0)
            own = images.to(split.device, non_blocking=True)
            yield split.finish(_whole(request, own, distributed), draws)
    finally:
        del fetched  # ends the workers, which a traceback would keep alive


def _whole(request: Request, own: Tensor, distributed: Distributed) -> Tensor:
    """Return all rows of a batch from those that each process has read."""
    kept = request.kept()
    missing = -(-len(kept) // distributed.world_size) - len(own)  # one, if the share is uneven
    if missing:
        own = torch.cat([own, own.new_empty(missing, *own.shape[1:])])
    read = distributed.gather(own)[: len(kept)]
    if request.replaced is None:
        return read
    whole = read.new_zeros(len(request.items) + len(request.drawn), *read.shape[1:])
    whole[kept.to(whole.device)] = read
    return whole


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
