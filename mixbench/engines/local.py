"""Place stages as processes on this machine. Knows slots and processes, not what a stage means.

Each stage runs in a process group of its own, so that its children end with it, and reads from a
pipe that closes when the launcher dies, so that nothing survives a dead launcher.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mixbench.errors import UsageError
from mixbench.stage import LIFELINE

GRACE_S = 15.0
# What torchrun and its like set for their processes, of which a stage is none.
OF_RANKS = frozenset({"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"})


class Ended(NamedTuple):
    """A stage whose process ended, with its exit code (negative: the signal that killed it)."""

    key: str
    code: int


@dataclass
class _Running:
    process: subprocess.Popen[bytes]
    slot: dict[str, str]
    lifeline: int  # open in the launcher alone, as long as it lives


def local_slots(size: int = 1, threads: int = 1) -> list[dict[str, str]]:
    """Return the environment of every slot.

    Parameters
    ----------
    size
        GPUs of a slot; on a machine without them, processes.
    threads
        Of each of those processes: more of them than there are cores would wait for each other.

    Raises
    ------
    UsageError
        If there are not that many.
    """
    gpus, cores = _gpus(), len(os.sched_getaffinity(0))
    number, unit = (len(gpus), "GPUs") if gpus else (cores, "processor cores")
    if size > number:
        raise UsageError(
            f"--gpus-per-cell must be at most the {number} {unit} of this machine (got {size})."
        )
    if not gpus:
        number = max(cores // (size * threads), 1)
        return [{"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}] * number
    return [
        {"CUDA_VISIBLE_DEVICES": ",".join(gpus[start : start + size])}
        for start in range(0, number - size + 1, size)
    ]


def readers(slots: list[dict[str, str]]) -> int:
    """Return how many processes of a slot can read images ahead beside its training.

    On GPUs that is the slot's share of the processor cores; without, they are busy training.
    """
    if not slots[0]["CUDA_VISIBLE_DEVICES"]:
        return 0
    return max(len(os.sched_getaffinity(0)) // len(slots) - 1, 1)


def _gpus() -> list[str]:
    """Return the indices of the GPUs that may be used, as the driver's own tool lists them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [gpu for gpu in visible.split(",") if gpu]
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    command = [tool, "--query-gpu=index", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.split()


class LocalEngine:
    """Runs stages as processes of this machine, one in each slot."""

    def __init__(self, root: Path, slots: list[dict[str, str]]) -> None:
        self.num_slots = len(slots)
        self._root = root
        self._slots = list(slots)
        self._running: dict[str, _Running] = {}

    @property
    def free(self) -> bool:
        """Whether another stage can start now."""
        return bool(self._slots)

    def start(self, key: str, log: Path) -> None:
        """Start the stage's process in a free slot; what it prints is appended to `log`."""
        slot = self._slots.pop(0)
        read, write = os.pipe()
        kept = {name: value for name, value in os.environ.items() if name not in OF_RANKS}
        environment = kept | slot | {LIFELINE: str(read), "PYTHONUNBUFFERED": "1"}
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "mixbench.stage", str(self._root), key],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=environment,
                pass_fds=(read,),
            )
        os.close(read)
        self._running[key] = _Running(process, slot, write)

    def ended(self) -> list[Ended]:
        """Return the stages that ended since the last call; their slots are free again."""
        ended = []
        for key, running in list(self._running.items()):
            code = running.process.poll()
            if code is not None:
                _signal_group(running.process, signal.SIGKILL)
                os.close(running.lifeline)
                self._slots.append(running.slot)
                del self._running[key]
                ended.append(Ended(key, code))
        return ended

    def stop(self, grace_s: float = GRACE_S) -> None:
        """Let every stage write a checkpoint and end; kill what does not within the grace."""
        for running in self._running.values():
            _signal_group(running.process, signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        for running in self._running.values():
            with suppress(subprocess.TimeoutExpired):
                running.process.wait(max(deadline - time.monotonic(), 0))
            _signal_group(running.process, signal.SIGKILL)
            running.process.wait()
            os.close(running.lifeline)
        self._running.clear()


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
