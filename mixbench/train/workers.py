"""DataLoader workers that read batches from files, and what can go wrong with them."""

import logging
import shutil
import signal
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mixbench.errors import DataError, MixbenchError
from mixbench.vision.images.splits import StreamedSplit

Work = tuple[Tensor, Tensor | None]  # items to read, and their augmentation draws
SHARED_MEMORY = Path("/dev/shm")  # where workers leave their batches
PREFETCHED = 2  # batches that each worker reads ahead
WAITED_S = 30.0  # for a batch, before the log says so
CLOSED = (ConnectionError, EOFError)  # of a worker that was killed while it hands a batch over
SIGNAL_S = 0.5  # in which the end of a worker is heard of after its connection has closed
LOG = logging.getLogger(__name__)


def fetched(
    split: StreamedSplit, work: Iterator[Work], workers: int
) -> Generator[Tensor | DataError, None, None]:
    """Yield the stored pixels of each batch, or the error that prevented reading them.

    This process reads the first batch, whose size tells how many workers there is memory for.
    Close the generator if you stop early: the workers run as long as it is open.

    Parameters
    ----------
    split
        The split to read from.
    work
        Items of each batch, and their augmentation draws.
    workers
        Number of workers; with 0, this process reads all batches.
    """
    fetch = Fetch(split)
    first = next(map(fetch.__getitem__, work), None)
    if first is None:
        return
    yield first
    if workers and not isinstance(first, DataError):
        workers = workers_that_fit(workers, first.nbytes)
    if workers:
        yield from _of_workers(fetch, work, workers, pinned=split.device.type == "cuda")
    else:
        yield from map(fetch.__getitem__, work)


def workers_that_fit(workers: int, batch_bytes: int) -> int:
    """Return how many DataLoader workers can leave their batches in shared memory; log if fewer.

    Parameters
    ----------
    workers
        Number of workers that were asked for.
    batch_bytes
        Size of a batch.
    """
    try:
        free = shutil.disk_usage(SHARED_MEMORY).free
    except OSError:  # another system
        return workers
    fit = min(workers, free // ((PREFETCHED + 1) * batch_bytes))
    if fit < workers:
        LOG.warning(
            "%s has %.3g MB free, in which %d of %d DataLoader workers can leave their batches of "
            "%.3g MB: %s. In a container, enlarge it (docker run --shm-size=8g).",
            SHARED_MEMORY, free / 1e6, fit, workers, batch_bytes / 1e6,
            f"{fit} are used" if fit else "the training process reads the images itself",
        )  # fmt: skip
    return fit


def _of_workers(
    fetch: "Fetch", work: Iterator[Work], workers: int, *, pinned: bool
) -> Generator[Tensor | DataError, None, None]:
    """Yield batches that DataLoader workers read.

    Raises
    ------
    MixbenchError
        If a worker was killed.
    RuntimeError
        If something else goes wrong in a worker.
    """
    loader = DataLoader(
        fetch, batch_size=None, sampler=work, num_workers=workers, pin_memory=pinned,
        prefetch_factor=PREFETCHED,
    )  # fmt: skip
    with _unheard():
        fetched = iter(loader)
    monitor = WaitMonitor([worker.pid for worker in fetched._workers])  # type: ignore[attr-defined]
    monitor.start()
    try:
        while True:
            monitor.since = time.monotonic()
            batch = next(fetched, None)
            monitor.since = None
            if batch is None:
                return
            yield batch
    except (RuntimeError, *CLOSED) as error:
        if isinstance(error, CLOSED):
            with suppress(RuntimeError):  # torch raises it as soon as it hears of the end
                time.sleep(SIGNAL_S)
        elif "DataLoader worker" not in str(error):
            raise
        raise MixbenchError(
            f"A DataLoader worker was killed ({' '.join(str(error).split())}). This is usually a "
            "lack of memory: use fewer workers (--workers N), or run fewer stages at a time."
        ) from error
    finally:
        monitor.ended.set()
        with suppress(RuntimeError, *CLOSED):  # not in __del__, where nobody can catch it
            fetched._shutdown_workers()  # type: ignore[attr-defined]
        del fetched


class WaitMonitor(threading.Thread):
    """Writes to the log when a training waits long for its DataLoader workers.

    Parameters
    ----------
    pids
        IDs of the workers' processes.

    Attributes
    ----------
    since : seconds
        Monotonic time since which the training waits; None if it does not.
    ended
        Event that ends the thread.
    """

    def __init__(self, pids: Sequence[int]) -> None:
        super().__init__(daemon=True)
        self._pids = pids
        self.since: float | None = None
        self.ended = threading.Event()

    def run(self) -> None:
        """Look every few seconds; after each line, wait twice as long for the next."""
        wait_s = WAITED_S
        while not self.ended.wait(min(WAITED_S / 6, 5.0)):
            since = self.since
            if since is None:
                wait_s = WAITED_S
            elif time.monotonic() - since >= wait_s:
                wait_s *= 2
                LOG.warning(
                    "no batch for %.0f s; the DataLoader workers are: %s",
                    time.monotonic() - since, ", ".join(map(_state_of, self._pids)),
                )  # fmt: skip


def _state_of(pid: int) -> str:
    """Return the state of a process, as the kernel calls it."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
    except OSError:
        return f"{pid} gone"
    state = next((line for line in lines if line.startswith("State:")), "State: unknown")
    return f"{pid} {state.partition(':')[2].strip()}"


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
