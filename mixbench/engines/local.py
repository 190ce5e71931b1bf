"""Place stages as processes on this machine.

Each stage runs in a process group of its own, so that its children end with it, and reads from a
pipe that closes when the launcher dies, so that nothing survives a dead launcher.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mixbench.engines import engine
from mixbench.engines.engine import Ended
from mixbench.engines.gpus import Slot
from mixbench.worker.protocol import LIFELINE

GRACE_S, REAP_S = 15.0, 2.0
# What torchrun and its like set for their processes, of which a stage is none.
OF_RANKS = frozenset({"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"})


@dataclass
class _Running:
    keys: tuple[str, ...]
    process: subprocess.Popen[bytes]
    slot: Slot
    lifeline: int  # open in the launcher alone, as long as it lives
    deadline: float
    memory_kills: int  # of the whole machine, before it
    how: str = ""  # why it was told to end
    whose: str = ""  # the stage that was meant; all of the process, if none
    kill_at: float = float("inf")


class LocalEngine:
    """Runs stages as processes of this machine, one in each slot.

    Parameters
    ----------
    timeout_s
        How long a stage may take.
    """

    outlives = False

    def __init__(self, root: Path, slots: Sequence[Slot], timeout_s: float = float("inf")) -> None:
        self.num_slots = len(slots)
        self.gpus = len(slots[0].gpus) * slots[0].share
        self._root = root
        self._timeout_s = timeout_s
        self._slots = list(slots)
        self._running: list[_Running] = []
        self._emptying: list[_Running] = []

    @property
    def free(self) -> bool:
        """Whether another stage can start now."""
        return bool(self._slots)

    def adopt(self, keys: Iterable[str]) -> set[str]:  # noqa: ARG002  # the protocol
        """Return nothing: no stage outlives its launcher."""
        return set()

    def start(self, keys: Sequence[str], log: Path) -> None:
        """Start the stages' process in a free slot; what it prints is appended to `log`."""
        slot = self._slots.pop(0)
        read, write = os.pipe()
        kept = {name: value for name, value in os.environ.items() if name not in OF_RANKS}
        told = slot.environment | {LIFELINE: str(read), "PYTHONUNBUFFERED": "1"}
        with log.open("ab") as output:
            process = subprocess.Popen(
                engine.stage_command(self._root, *keys),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=kept | told,
                pass_fds=(read,),
            )
        os.close(read)
        deadline = time.monotonic() + self._timeout_s
        running = _Running(tuple(keys), process, slot, write, deadline, _memory_kills())
        self._running.append(running)

    def ended(self) -> list[Ended]:
        """Return the stages that ended since the last call; end those that took too long.

        A slot is free again when nothing of its stage's group lives.
        """
        ended = []
        now = time.monotonic()
        for running in [*self._running]:
            code = running.process.poll()
            if code is not None:
                _signal_group(running.process, signal.SIGKILL)
                os.close(running.lifeline)
                self._emptying.append(running)
                self._running.remove(running)
                ended += [_end(key, code, running) for key in running.keys]
            elif now > running.deadline and not running.how:
                self._tell_to_end(running, "timeout")
            elif now > running.kill_at:
                _signal_group(running.process, signal.SIGKILL)
        for running in [r for r in self._emptying if not _lives(r.process.pid)]:
            self._emptying.remove(running)
            self._slots.append(running.slot)
        return ended

    def place(self, key: str) -> str:
        """Say in which slot a stage runs."""
        return next((r.slot.name for r in self._running if key in r.keys), "")

    def cancel(self, key: str) -> None:
        """Let a stage write a checkpoint and end; kill it if it does not within the grace.

        What shares its process ends with it, and is started again.
        """
        for running in self._running:
            if key in running.keys:
                self._tell_to_end(running, "cancelled", key)

    def stop(self, grace_s: float = GRACE_S) -> None:
        """Let every stage write a checkpoint and end; kill what does not within the grace."""
        for running in self._running:
            _signal_group(running.process, signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        try:
            for running in self._running:
                with suppress(subprocess.TimeoutExpired):
                    running.process.wait(max(deadline - time.monotonic(), 0))
        finally:  # the user, too, may lose patience
            for running in self._running:
                _signal_group(running.process, signal.SIGKILL)
                # Not for ever: an interrupt in the middle of a look keeps the lock of waiting.
                with suppress(subprocess.TimeoutExpired):
                    running.process.wait(REAP_S)
                os.close(running.lifeline)
            self._running.clear()

    @staticmethod
    def _tell_to_end(running: _Running, how: str, key: str = "") -> None:
        running.how, running.kill_at = how, time.monotonic() + GRACE_S
        running.whose = key
        _signal_group(running.process, signal.SIGTERM)


def _end(key: str, code: int, running: _Running) -> Ended:
    """Return how a stage ended, told apart by what happened to this machine."""
    if running.how and running.whose in {"", key}:
        return Ended(key, code, running.how)  # type: ignore[arg-type]  # one of the protocol's words
    if code == -signal.SIGKILL and _memory_kills() > running.memory_kills:
        return Ended(key, code, "out of memory")
    # Of several stages each has left a word of its own; a process that was killed, of none.
    return Ended(key, code if code < 0 or len(running.keys) == 1 else None)


def _memory_kills() -> int:
    """Return how many processes of this machine the kernel has killed for want of memory."""
    with suppress(OSError, ValueError):
        for line in Path("/proc/vmstat").read_text(encoding="ascii").splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
    return 0


def _lives(group: int) -> bool:
    """Tell whether a process group has a process that is no zombie.

    Zombies count for the kernel, and stay where the first process of a container reaps none.
    """
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # The name, in brackets, may hold anything; state, parent and group follow it.
            state, _parent, own, *_ = path.read_text(errors="replace").rpartition(")")[2].split()
            if int(own) == group and state not in "ZX":
                return True
    return False


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
