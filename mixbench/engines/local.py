"""The local engine, which runs stages as processes on this machine.

Each stage runs in a separate process group, so that its child processes end with it. It watches a
pipe that closes when the launcher dies, so that no stage outlives the launcher.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

from mixbench.engines import engine
from mixbench.engines.engine import GRACE_S, Ended
from mixbench.engines.fork_server import ForkedProcess
from mixbench.engines.gpus import Slot
from mixbench.worker.protocol import LIFELINE

REAP_S = 2.0
# Set by torchrun and similar tools. A stage must not inherit them, as it is not one of their
# processes.
OF_RANKS = frozenset({"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"})


Process = subprocess.Popen[bytes] | ForkedProcess


@dataclass
class _Running:
    keys: tuple[str, ...]
    process: Process
    slot: Slot
    lifeline: Connection  # write end of the pipe, open in the launcher only
    deadline: float
    memory_kills: int  # on the whole machine, before the process started
    how: str = ""  # why the engine ended it; empty if it did not
    whose: str = ""  # key of the cancelled stage; empty for all of the process
    kill_at: float = float("inf")


class LocalEngine:
    """Run stages as processes on this machine, one process per slot.

    Parameters
    ----------
    root
        Folder of the store.
    slots
        Slots to run processes in; all have the same size.
    timeout_s
        Time limit per stage, in seconds.
    """

    outlives = False

    def __init__(self, root: Path, slots: Sequence[Slot], timeout_s: float = float("inf")) -> None:
        self.num_slots = len(slots)
        self.gpus = self.gpus_alone = len(slots[0].gpus) * slots[0].share  # all of its slot
        self._root = root
        self._timeout_s = timeout_s
        self._slots = list(slots)
        self._running: list[_Running] = []
        self._emptying: list[_Running] = []

    @property
    def free(self) -> bool:
        """Whether another stage can start now."""
        return bool(self._slots)

    def adopt(self, keys: Iterable[str]) -> set[str]:  # noqa: ARG002  # the interface
        """Return an empty set, because no stage outlives its launcher."""
        return set()

    def start(self, keys: Sequence[str], log: Path) -> None:
        """Start one process for the stages in a free slot; append its output to `log`."""
        slot = self._slots.pop(0)
        command = engine.stage_command(self._root, *keys)
        kept = {name: value for name, value in os.environ.items() if name not in OF_RANKS}
        start = _execute if slot.gpus else _fork
        read, write = Pipe(duplex=False)
        with read:
            process = start(command, kept | slot.environment, read, log)
        deadline = time.monotonic() + self._timeout_s
        running = _Running(tuple(keys), process, slot, write, deadline, _memory_kills())
        self._running.append(running)

    def ended(self) -> list[Ended]:
        """Return the stages that ended since the last call; end those that exceed the time limit.

        A slot becomes free when no process of its process group is left.
        """
        ended = []
        now = time.monotonic()
        for running in [*self._running]:
            code = running.process.poll()
            if code is not None:
                _signal_group(running.process, signal.SIGKILL)
                running.lifeline.close()
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
        """Return the name of the slot in which a stage runs."""
        return next((r.slot.name for r in self._running if key in r.keys), "")

    def cancel(self, key: str) -> None:
        """Let a stage write a checkpoint and end; kill it if it takes longer than 15 s.

        Stages that share its process end with it, and the scheduler starts them again.
        """
        for running in self._running:
            if key in running.keys:
                self._tell_to_end(running, "cancelled", key)

    def stop(self, grace_s: float = GRACE_S) -> None:
        """Let every stage write a checkpoint and end; kill those that exceed the grace period."""
        for running in self._running:
            _signal_group(running.process, signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        try:
            for running in self._running:
                with suppress(subprocess.TimeoutExpired):
                    running.process.wait(max(deadline - time.monotonic(), 0))
        finally:  # an interrupt during the wait must not leave processes behind
            for running in self._running:
                _signal_group(running.process, signal.SIGKILL)
                # With a time limit: an interrupt inside `wait` can leave its lock taken.
                with suppress(subprocess.TimeoutExpired):
                    running.process.wait(REAP_S)
                running.lifeline.close()
            self._running.clear()

    @staticmethod
    def _tell_to_end(running: _Running, how: str, key: str = "") -> None:
        running.how, running.kill_at = how, time.monotonic() + GRACE_S
        running.whose = key
        _signal_group(running.process, signal.SIGTERM)


def _execute(
    command: Sequence[str], environment: Mapping[str, str], lifeline: Connection, log: Path
) -> Process:
    """Start a stage's command as a new process."""
    told = {LIFELINE: str(lifeline.fileno()), "PYTHONUNBUFFERED": "1"}
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**environment, **told},
            pass_fds=(lifeline.fileno(),),
        )


def _fork(
    command: Sequence[str], environment: Mapping[str, str], lifeline: Connection, log: Path
) -> Process:
    """Run a stage's command, ``python -P -m MODULE ...``, in a process that is forked."""
    _python, _safe, _m, module, *arguments = command
    log.touch()  # a full disk is the launcher's error
    return ForkedProcess(module, arguments, environment, lifeline, log)


def _end(key: str, code: int, running: _Running) -> Ended:
    """Return how a stage ended: by this engine, by the kernel for lack of memory, or itself."""
    if running.how and running.whose in {"", key}:
        return Ended(key, code, running.how)  # type: ignore[arg-type]  # a literal of Ended
    if code == -signal.SIGKILL and _memory_kills() > running.memory_kills:
        return Ended(key, code, "out of memory")
    # Stages that share a process write their own exit codes, unless the process was killed.
    return Ended(key, code if code < 0 or len(running.keys) == 1 else None)


def _memory_kills() -> int:
    """Return the number of processes that the kernel's out-of-memory killer has ended."""
    with suppress(OSError, ValueError):
        for line in Path("/proc/vmstat").read_text(encoding="ascii").splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
    return 0


def _lives(group: int) -> bool:
    """Return whether a process group has a process that is not a zombie.

    `os.killpg` also finds zombies, which remain in containers whose init process does not reap
    them.
    """
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # The name, in brackets, can contain any text; state, parent and group follow it.
            state, _parent, own, *_ = path.read_text(errors="replace").rpartition(")")[2].split()
            if int(own) == group and state not in "ZX":
                return True
    return False


def _signal_group(process: Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
