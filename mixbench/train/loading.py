"""Load the batches that a run requests, in order, with DataLoader workers where files are read."""

from collections.abc import Generator, Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from mixbench.contract import Split
from mixbench.errors import DataError
from mixbench.train.distributed import SINGLE_PROCESS, Distributed
from mixbench.train.workers import Work, fetched
from mixbench.vision.images.splits import StreamedSplit

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

    found = fetched(split, work(), workers)
    try:
        for images in found:
            if isinstance(images, DataError):
                raise images
            request, draws = asked.pop(0)
            own = images.to(split.device, non_blocking=True)
            yield split.finish(_whole(request, own, distributed), draws)
    finally:
        found.close()  # ends the workers, which a traceback would keep alive


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
