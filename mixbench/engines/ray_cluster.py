"""Place stages on a Ray cluster: each a task that starts the stage's process and waits for it.

Ray finds the place; the stage is the same command as everywhere, and what it means is read from the
store. Tasks end with the launcher, and Ray retries none of them: the scheduler does.
"""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixbench.engines import engine
from mixbench.engines.engine import Ended
from mixbench.engines.settings import RaySettings
from mixbench.errors import UsageError
from mixbench.stage import LIFELINE

# Ray's own, and what it says to each worker.
NOT_PASSED_ON = ("RAY_", "CUDA_VISIBLE_DEVICES")
PATIENCE_S = 10


@dataclass
class _Task:
    reference: Any
    deadline: float
    how: str = ""


class RayEngine:
    """Runs stages as tasks of Ray.

    Parameters
    ----------
    size
        GPUs of a stage, where the cluster has any.
    timeout_s
        How long a stage may take, waiting for its place included.

    Raises
    ------
    UsageError
        If Ray is not installed, or the cluster cannot be reached, or has too few GPUs.
    """

    outlives = False

    def __init__(
        self, root: Path, settings: RaySettings, size: int = 1, timeout_s: float = float("inf")
    ) -> None:
        self._ray = _connected(settings.address)
        there = self._ray.cluster_resources()
        self._root, self._settings, self._timeout_s = root, settings, timeout_s
        self.gpus = size / settings.jobs_per_gpu if there.get("GPU") else 0.0
        if self.gpus > there.get("GPU", 0):
            self._ray.shutdown()
            raise UsageError(
                f"--gpus-per-cell must be at most the {there['GPU']:g} GPUs of the Ray cluster "
                f"(got {size})."
            )
        slots = there["GPU"] / self.gpus if self.gpus else there.get("CPU", 1) / settings.cpus
        self.num_slots = max(int(slots), 1)
        self._tasks: dict[str, _Task] = {}
        self._task = self._ray.remote(max_retries=0, max_calls=1)(supervise)

    @property
    def free(self) -> bool:
        """Whether the cluster has room for another stage, as far as ours go."""
        return len(self._tasks) < self.num_slots

    def adopt(self, keys: Iterable[str]) -> set[str]:  # noqa: ARG002  # the protocol
        """Return nothing: no task outlives its launcher."""
        return set()

    def start(self, key: str, log: Path) -> None:
        """Hand the stage to Ray."""
        passed = {n: v for n, v in os.environ.items() if not n.startswith(NOT_PASSED_ON)}
        command = engine.stage_command(self._root, key)
        options = {"num_cpus": self._settings.cpus, "num_gpus": self.gpus, "name": key}
        reference = self._task.options(**options).remote(command, str(log), passed)
        self._tasks[key] = _Task(reference, time.monotonic() + self._timeout_s)

    def ended(self) -> list[Ended]:
        """Return the stages whose tasks ended since the last call; end those that took too long."""
        for key, task in self._tasks.items():
            if time.monotonic() > task.deadline and not task.how:
                self._end(key, "timeout")
        if not self._tasks:
            return []
        keys = {task.reference: key for key, task in self._tasks.items()}
        ready, _ = self._ray.wait([*keys], num_returns=len(keys), timeout=0)
        return [self._ended(keys[reference]) for reference in ready]

    def _ended(self, key: str) -> Ended:
        """Return how a task ended."""
        task = self._tasks.pop(key)
        code: int | None = None
        how = task.how
        try:
            code = self._ray.get(task.reference)
        except self._ray.exceptions.OutOfMemoryError:
            how = how or "out of memory"
        except self._ray.exceptions.RayError:  # the worker or its node is gone
            code = None
        return Ended(key, code, how)  # type: ignore[arg-type]  # one of the protocol's words

    def place(self, key: str) -> str:
        """Say that Ray has it."""
        return "Ray" if key in self._tasks else ""

    def cancel(self, key: str) -> None:
        """End a stage's task, and with it its process."""
        if key in self._tasks:
            self._end(key, "cancelled")

    def stop(self) -> None:
        """End every task, and leave the cluster."""
        for key in self._tasks:
            self._end(key, "cancelled")
        self._tasks.clear()
        self._ray.shutdown()

    def _end(self, key: str, how: str) -> None:
        self._tasks[key].how = how
        self._ray.cancel(self._tasks[key].reference, force=True)


def supervise(command: Sequence[str], log: str, environment: Mapping[str, str]) -> int:
    """Run a stage's process in the place that Ray found; return its exit code.

    The process reads from a pipe that closes when this worker dies.
    """
    read, write = os.pipe()
    visible = {n: v for n, v in os.environ.items() if n == "CUDA_VISIBLE_DEVICES"}
    told = {LIFELINE: str(read), "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    with Path(log).open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**environment, **visible, **told},
            pass_fds=(read,),
        )
    os.close(read)
    try:
        return process.wait()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        os.close(write)


def _connected(address: str) -> Any:
    """Return Ray, connected to a cluster.

    Raises
    ------
    UsageError
        If it is not installed, or does not answer.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would call home
    try:
        import ray
    except ImportError as error:
        raise UsageError(
            "--engine ray: Ray is not installed; `pip install mixbench[ray]` brings it."
        ) from error
    host, colon, port = address.rpartition(":")
    if colon and port.isdecimal():  # Ray itself would wait for minutes
        try:
            socket.create_connection((host, int(port)), PATIENCE_S).close()
        except OSError as error:
            raise UsageError(_unreachable(address, error)) from error
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if address == "local":
            ray.init(address="local", include_dashboard=False, **quiet)
        else:
            ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise UsageError(_unreachable(address, error)) from error
    return ray


def _unreachable(address: str, error: Exception) -> str:
    first = str(error).strip().partition("\n")[0]
    return (
        f"--engine ray: the cluster at {address!r} cannot be joined ({first}). Start one with `ray "
        "start --head`, of this version of Ray, or take ray.address = 'local'."
    )
