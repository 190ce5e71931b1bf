"""The Ray engine, which runs each stage as a Ray task that starts its process and waits for it.

Ray chooses the node. The process runs the same command as on every engine, and its result is read
from the store. Tasks end with the launcher. The scheduler retries lost stages; Ray retries none. A
training on several nodes is gang-scheduled: it has one task per process, and all of them start once
a placement group has reserved resources for all.
"""

import os
import signal
import subprocess
import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixbench.engines import engine
from mixbench.engines.engine import GRACE_S, Ended
from mixbench.engines.ray_join import join
from mixbench.engines.settings import RaySettings
from mixbench.errors import UsageError
from mixbench.storage.spec import DISTRIBUTED_KINDS
from mixbench.storage.store import Store
from mixbench.worker.protocol import LIFELINE

if TYPE_CHECKING:
    from ray import ObjectRef

LOOK_S, REAP_S = 0.1, 5.0
# Environment variables of Ray, and the one that Ray sets for each Ray worker.
NOT_PASSED_ON = ("RAY_", "CUDA_VISIBLE_DEVICES")


@dataclass
class _Task:
    """A stage that was submitted to Ray.

    Attributes
    ----------
    deadline
        Monotonic time at which the stage is ended.
    log
        File that the stage's output is appended to.
    references
        Ray object references to wait for: those of the stage's processes, or that of a placement
        group which is not ready yet.
    group
        Placement group of a training on several nodes; None for other stages.
    placed
        Whether the stage's processes were submitted.
    code
        First exit code that is not 0; None if the process or its node was lost.
    how
        Reason for the end, as in `Ended`.
    """

    deadline: float
    log: Path
    references: "list[ObjectRef[int]]" = field(default_factory=list)
    group: Any = None
    placed: bool = False
    code: int | None = 0
    how: str = ""


class RayEngine:
    """Run each stage as a Ray task.

    Parameters
    ----------
    store
        Store that the stages are read from and written to.
    settings
        The ``[ray]`` table of the settings file.
    size
        Number of GPUs per stage on each node, if the cluster has GPUs.
    timeout_s
        Time limit per stage in seconds, including the time that it waits for resources.

    Raises
    ------
    UsageError
        If Ray is not installed, or the cluster cannot be reached, or has too few GPUs or nodes.
    """

    outlives = False

    def __init__(
        self, store: Store, settings: RaySettings, size: int = 1, timeout_s: float = float("inf")
    ) -> None:
        self._ray = join(settings.address)
        self._store, self._settings, self._timeout_s = store, settings, timeout_s
        self._size = size
        there = self._ray.cluster_resources()
        self.gpus = size / settings.jobs_per_gpu if there.get("GPU") else 0.0
        self.gpus_alone = min(self.gpus, 1.0)
        try:
            self._check(there)
        except UsageError:
            self._ray.shutdown()
            raise
        slots = there["GPU"] / self.gpus if self.gpus else there.get("CPU", 1) / settings.cpus
        self.num_slots = max(int(slots) // settings.nodes, 1)
        self._tasks: dict[str, _Task] = {}
        self._task = self._ray.remote(max_retries=0, max_calls=1)(supervise)

    def _check(self, there: Mapping[str, float]) -> None:
        """Raise an error if the cluster has fewer GPUs or nodes than a stage requests."""
        if self.gpus > there.get("GPU", 0):
            raise UsageError(
                f"--gpus-per-cell must be at most the {there['GPU']:g} GPUs of the Ray cluster "
                f"(got {self._size})."
            )
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        able = sum(all(n.get(name, 0) >= v for name, v in self._bundle().items()) for n in nodes)
        if self._settings.nodes > 1 and able < self._settings.nodes:
            raise UsageError(
                f"ray.nodes must be at most the {able} nodes of the cluster with the resources "
                f"of a cell, {_listed(self._bundle())} (got {self._settings.nodes})."
            )

    def _bundle(self) -> dict[str, float]:
        """Return the resources that a training takes on each of its nodes."""
        gpus = {"GPU": float(self._size)} if self.gpus else {}
        return {"CPU": self._settings.cpus * self._size, **gpus}

    @property
    def free(self) -> bool:
        """Whether fewer stages of this launcher are submitted than the cluster has slots."""
        return len(self._tasks) < self.num_slots

    def adopt(self, keys: Iterable[str]) -> set[str]:  # noqa: ARG002  # the interface
        """Return an empty set, because no task outlives its launcher."""
        return set()

    def start(self, keys: Sequence[str], log: Path) -> None:
        """Submit the stage to Ray."""
        (key,) = keys  # a task runs one stage
        task = self._tasks[key] = _Task(time.monotonic() + self._timeout_s, log)
        together = self._store.spec(key).stage.kind in DISTRIBUTED_KINDS
        if self._settings.nodes > 1 and together:
            from ray.util import placement_group

            bundles = [self._bundle()] * self._settings.nodes
            task.group = placement_group(bundles, strategy="STRICT_SPREAD")
            task.references = [task.group.ready()]
        else:
            task.placed, gpus = True, self.gpus if together else self.gpus_alone
            task.references = [self._hand(key, task, {"num_gpus": gpus}, {})]

    def _hand(
        self, key: str, task: _Task, options: Mapping[str, Any], told: Mapping[str, str]
    ) -> "ObjectRef[int]":
        """Submit one process of a stage to Ray, and return its object reference."""
        passed = {n: v for n, v in os.environ.items() if not n.startswith(NOT_PASSED_ON)}
        command = engine.stage_command(self._store.root, key)
        options = {"num_cpus": self._settings.cpus, "name": key, **options}
        submit = self._task.options(**options)
        reference: ObjectRef[int] = submit.remote(command, str(task.log), passed | {**told})
        return reference

    def _gather(self, key: str, task: _Task) -> None:
        """Start a training's processes in its placement group; the first node is the master."""
        from ray.util import placement_group_table
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        first = placement_group_table(task.group)["bundles_to_node_id"][0]
        nodes = {node["NodeID"]: node["NodeManagerAddress"] for node in self._ray.nodes()}
        world = self._settings.nodes * self._size
        told = {
            "WORLD_SIZE": str(world),
            "MASTER_ADDR": nodes[first],
            "MASTER_PORT": str(20000 + zlib.crc32(key.encode()) % 20000),
            "LOCAL_RANK": "0",  # Ray shows each process only its own GPU
        }
        task.placed, task.references = True, []
        for rank in range(world):
            place = PlacementGroupSchedulingStrategy(
                task.group, placement_group_bundle_index=rank // self._size
            )
            options = {"num_gpus": float(bool(self.gpus)), "scheduling_strategy": place}
            task.references.append(self._hand(key, task, options, {**told, "RANK": str(rank)}))

    def ended(self) -> list[Ended]:
        """Return the stages that ended since the last call; end those over the time limit."""
        for key, task in self._tasks.items():
            if time.monotonic() > task.deadline and not task.how:
                self._end(key, "timeout")
        pending = [reference for task in self._tasks.values() for reference in task.references]
        ready: set[ObjectRef[int]] = set()
        if pending:
            ready = {*self._ray.wait(pending, num_returns=len(pending), timeout=0)[0]}
        found = []
        for key, task in [*self._tasks.items()]:
            for reference in [*ready.intersection(task.references)]:
                self._take(key, task, reference)
            if not task.references:
                found.append(Ended(key, task.code, task.how))  # type: ignore[arg-type]
                self._forget(key)
        return found

    def _take(self, key: str, task: _Task, reference: "ObjectRef[int]") -> None:
        """Handle a ready reference; one failed process ends the other processes of its stage."""
        code: int | None = None
        how = task.how
        try:
            code = self._ray.get(reference) if task.placed else 0
        except self._ray.exceptions.OutOfMemoryError:
            how = how or "out of memory"
        except self._ray.exceptions.RayError:  # the worker or its node is gone
            code = None
        if not task.placed:
            self._gather(key, task)
            return
        task.references.remove(reference)
        if code != 0 and task.code == 0:
            task.code, task.how = code, how
            self._cancel(task, force=True)  # without this process, the others cannot go on

    def place(self, key: str) -> str:
        """Return "Ray", or that a training waits for its nodes."""
        if key not in self._tasks:
            return ""
        return "Ray" if self._tasks[key].placed else f"waits for {self._settings.nodes} nodes"

    def cancel(self, key: str) -> None:
        """Cancel a stage's task, which lets its process write a checkpoint and end."""
        if key in self._tasks:
            self._end(key, "cancelled")

    def stop(self) -> None:
        """Cancel every task, wait until their processes have ended, and leave the cluster."""
        for key in self._tasks:
            self._end(key, "cancelled")
        told = [reference for task in self._tasks.values() for reference in task.references]
        if told:
            self._ray.wait(told, num_returns=len(told), timeout=GRACE_S + REAP_S)
        for key in [*self._tasks]:
            self._forget(key)
        self._ray.shutdown()

    def _end(self, key: str, how: str) -> None:
        task = self._tasks[key]
        task.how = how
        if task.placed:
            self._cancel(task, force=False)  # raises KeyboardInterrupt in `supervise`
        else:
            task.code, task.references = None, []

    def _cancel(self, task: _Task, *, force: bool) -> None:
        for reference in task.references:
            self._ray.cancel(reference, force=force)

    def _forget(self, key: str) -> None:
        """Remove a stage, and release its placement group."""
        task = self._tasks.pop(key)
        if task.group is not None:
            from ray.util import remove_placement_group

            remove_placement_group(task.group)


def supervise(command: Sequence[str], log: str, environment: Mapping[str, str]) -> int:
    """Run a stage's process on the node that Ray chose, and return its exit code.

    The process watches a pipe that closes when this Ray worker dies. If the task is cancelled, it
    is told to end, and killed after `GRACE_S`.

    Raises
    ------
    KeyboardInterrupt
        If the task is cancelled.
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
        while (code := process.poll()) is None:  # Ray interrupts no call that blocks
            time.sleep(LOOK_S)
        return code
    except KeyboardInterrupt:
        with suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(GRACE_S)
        raise
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        os.close(write)


def _listed(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{value:g} {name}" for name, value in resources.items())
