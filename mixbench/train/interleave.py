"""Several runs in one process, a step of each in turn.

Each is a thread, so that its code is that of a run alone; but one of them works at a time, and
hands over between its steps. So what a step sets for the whole process, as torch's generator, is
its own, and a run ends as it would alone. A GPU works on: each run has a stream there.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager


class Interleaver:
    """Whose turn it is, of numbered runs."""

    def __init__(self, number: int) -> None:
        self._waiting = [*range(number)]  # the first of them works
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, run: int) -> Iterator[None]:
        """Work as one of the runs, from its first turn to its last."""
        try:
            self._await(run)
            yield
        finally:
            with self._changed:
                self._waiting.remove(run)
                self._changed.notify_all()

    def yield_turn(self, run: int) -> None:
        """Let each of the others do a step."""
        with self._changed:
            self._waiting.append(self._waiting.pop(0))
            self._changed.notify_all()
        self._await(run)

    def _await(self, run: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting[0] == run)


def run_interleaved(works: Sequence[Callable[[Callable[[], None]], None]]) -> None:
    """Do several works, each of which is given what hands over to the next; wait for all.

    What one of them raises is its own matter: a work must not raise.
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
    """Let this thread's work on a GPU run beside that of others."""
    import torch

    if not torch.cuda.is_available():
        yield
        return
    with torch.cuda.stream(torch.cuda.Stream()):
        yield
