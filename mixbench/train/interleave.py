"""Interleave several runs in one process: each does one step in turn.

Each run is a thread, so that its code is the same as for a single run. Only one thread works at a
time, and it yields to the next between its steps. Global state that a step sets, such as torch's
random generator, therefore affects only that step, and a run ends with the same result as alone.
On a GPU each run has its own stream, so that kernels of several runs overlap.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager


class Interleaver:
    """Decides which of several numbered runs may work.

    Parameters
    ----------
    number
        Number of runs.
    """

    def __init__(self, number: int) -> None:
        self._waiting = [*range(number)]  # the first of them works
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, run: int) -> Iterator[None]:
        """Wait for the run's first turn; remove the run from the rotation at the exit."""
        try:
            self._await(run)
            yield
        finally:
            with self._changed:
                self._waiting.remove(run)
                self._changed.notify_all()

    def yield_turn(self, run: int) -> None:
        """Let each of the other runs do a step; return when it is this run's turn again."""
        with self._changed:
            self._waiting.append(self._waiting.pop(0))
            self._changed.notify_all()
        self._await(run)

    def _await(self, run: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting[0] == run)


def run_interleaved(works: Sequence[Callable[[Callable[[], None]], None]]) -> None:
    """Run several functions in turns, one thread each, and wait for all.

    Parameters
    ----------
    works
        Functions that must not raise. Each receives a function that it calls between two steps to
        let the others work.
    """
    turns = Interleaver(len(works))

    def one(run: int) -> None:
        with turns.taken(run), _own_stream():
            works[run](lambda: turns.yield_turn(run))

    threads = [threading.Thread(target=one, args=(run,)) for run in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@contextmanager
def _own_stream() -> Iterator[None]:
    """Use a separate CUDA stream for this thread, if there is a GPU."""
    import torch

    if not torch.cuda.is_available():
        yield
        return
    with torch.cuda.stream(torch.cuda.Stream()):
        yield
