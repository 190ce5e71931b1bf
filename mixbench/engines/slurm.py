"""Place stages as jobs of a SLURM cluster, by sbatch, squeue, scontrol and scancel alone.

A launcher finds the jobs of an earlier one by their names; neither accounting nor a handle on the
disk is needed. Jobs are not requeued by SLURM, but submitted again by the launcher, from their
checkpoints. The launcher itself may be a job too, which SLURM does requeue.
"""

import re
import shlex
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mixbench.engines import engine, slurm_queue
from mixbench.engines.engine import Ended
from mixbench.engines.settings import SlurmSettings
from mixbench.engines.slurm_queue import Line, job_name
from mixbench.errors import MixbenchError, UsageError
from mixbench.storage.store import Store

WARNED_S = 60  # before a time limit or a preemption, so that a checkpoint can be written


class Resources(NamedTuple):
    """What a job asks for beside nodes and processors, and how many GPUs that is.

    Attributes
    ----------
    size
        GPUs of a cell on each node, or processes where the cluster has none.
    """

    size: int
    gres: str
    gpus: float


def resources_of(settings: SlurmSettings, size: int = 1) -> Resources:
    """Return what jobs ask for: what the settings say, or what the cluster has.

    Raises
    ------
    UsageError
        If there is no SLURM here, or stages are to share GPUs that cannot be shared.
    """
    if shutil.which("sbatch") is None:
        raise UsageError(
            "--engine slurm: there is no sbatch on this machine. Give the command on a node of the "
            "cluster that submits jobs, or take --engine local."
        )
    if settings.gres:
        number = re.fullmatch(r"gpu(?::\w+)?:(\d+)", settings.gres)
        return Resources(size, settings.gres, float(number[1]) if number else 1.0)
    done = slurm_queue.call(["sinfo", "--noheader", "--format", "%G"])
    there = dict(re.findall(r"(gpu|shard)(?::\w+)?:(\d+)", done.stdout if done else ""))
    if settings.jobs_per_gpu > 1:
        if "shard" not in there or size > 1:
            raise UsageError(
                "jobs_per_gpu shares GPUs by SLURM's shards, of which this cluster has none for "
                "that: leave it at 1, or give slurm.gres in the settings."
            )
        shards = max(int(there["shard"]) // int(there["gpu"]) // settings.jobs_per_gpu, 1)
        return Resources(size, f"shard:{shards}", 1 / settings.jobs_per_gpu)
    return Resources(size, f"gpu:{size}", size) if "gpu" in there else Resources(size, "", 0.0)


@dataclass
class _Job:
    number: str
    submitted: float
    line: Line | None = None
    gone: float | None = None  # since when it is missing from the queue


class SlurmEngine:
    """Runs stages as jobs of SLURM.

    Parameters
    ----------
    timeout_s
        How long a stage may take; None leaves it to the settings and the partition.
    """

    outlives = True

    def __init__(
        self,
        store: Store,
        settings: SlurmSettings,
        resources: Resources,
        timeout_s: float | None = None,
    ) -> None:
        self._store, self._settings, self._resources = store, settings, resources
        self._timeout_s = timeout_s
        self._jobs: dict[str, _Job] = {}
        self._looked = float("-inf")
        self.gpus = resources.gpus
        self.num_slots = settings.max_jobs

    @property
    def free(self) -> bool:
        """Whether the queue may take another job of ours."""
        return len(self._jobs) < self._settings.max_jobs

    def adopt(self, keys: Iterable[str]) -> set[str]:
        """Return which of the stages have a job in the queue already."""
        queue = self._queue()
        if queue is None:
            raise MixbenchError(
                "SLURM's controller does not answer, so it is not known which stages run already: "
                "give the same command again when squeue works."
            )
        by_name = {line.name: line for line in queue.values()}
        for key in keys:
            if line := by_name.get(job_name(self._store, key)):
                self._jobs[key] = _Job(line.number, time.monotonic(), line)
        return set(self._jobs)

    def start(self, keys: Sequence[str], log: Path) -> None:
        """Submit the stage's job.

        Raises
        ------
        UsageError
            If SLURM refuses it.
        """
        (key,) = keys  # a job has one
        options, lines = self._job(key, log)
        number = slurm_queue.submit(options, ("--no-requeue", *self._settings.options), lines)
        self._jobs[key] = _Job(number, time.monotonic())

    def ended(self) -> list[Ended]:
        """Return the stages whose jobs are gone from the queue, and whose word has arrived.

        A look at the queue from before a submission proves nothing, nor does one that failed.
        """
        now = time.monotonic()
        if not self._jobs or now - self._looked < self._settings.poll_s:
            return []
        queue = self._queue()
        if queue is None:
            return []
        found = []
        for key, job in list(self._jobs.items()):
            job.line = queue.get(job.number)
            if job.line or now < job.submitted + 1:
                job.gone = None
                continue
            job.gone = job.gone or now
            word = self._store.finished(key) or self._store.exit_code(key) is not None
            if word or now - job.gone >= self._settings.settle_s:
                found.append(self._end(key, job))
                del self._jobs[key]
        return found

    def place(self, key: str) -> str:
        """Say on which nodes a stage runs, or why it waits."""
        job = self._jobs.get(key)
        if job is None:
            return ""
        return job.line.place if job.line else f"job {job.number} queued"

    def cancel(self, key: str) -> None:
        """Cancel a stage's job."""
        if key in self._jobs:
            slurm_queue.call(["scancel", self._jobs[key].number])

    def stop(self) -> None:
        """Leave the jobs to SLURM: the same command finds them again."""

    def _queue(self) -> dict[str, Line] | None:
        self._looked = time.monotonic()
        return slurm_queue.queue()

    def _end(self, key: str, job: _Job) -> Ended:
        """Return how a job ended, as far as SLURM remembers it."""
        done = slurm_queue.call(["scontrol", "--oneliner", "show", "job", job.number])
        facts = dict(re.findall(r"(\w+)=(\S+)", done.stdout)) if done else {}
        if facts.get("JobState") == "OUT_OF_MEMORY":
            return Ended(key, None, "out of memory")
        if facts.get("JobState") == "CANCELLED":
            return Ended(key, None, "cancelled")
        return Ended(key, None)

    def _job(self, key: str, log: Path) -> tuple[dict[str, str], list[str]]:
        """Return the options of a stage's job, and what it does."""
        asked = self._settings
        gang = asked.nodes > 1 and self._store.spec(key).stage.kind == "train"
        minutes = f"{max(round((self._timeout_s or 0) / 60), 1)}"
        options = {
            "job-name": job_name(self._store, key),
            "output": str(log),
            "open-mode": "append",
            "nodes": str(asked.nodes if gang else 1),
            "ntasks-per-node": "1",
            "cpus-per-task": str(asked.cpus),
            "signal": f"{'' if gang else 'B:'}TERM@{WARNED_S}",
            "partition": asked.partition,
            "account": asked.account,
            "time": minutes if self._timeout_s else asked.time,
            "mem": asked.memory,
            "gres": self._resources.gres,
        }
        command = engine.stage_command(self._store.root, key)
        words = self._gang(command) if gang else f"exec {shlex.join(command)}"
        return options, [*asked.setup, words]

    def _gang(self, command: Sequence[str]) -> str:
        """Return how the processes of several nodes are started, and meet."""
        python, *arguments = command
        return (
            'first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)\n'
            'head=$(scontrol show node "$first" | sed -n "s/.*NodeAddr=\\([^ ]*\\).*/\\1/p")\n'
            f"exec srun --kill-on-bad-exit=1 {shlex.quote(python)} -m torch.distributed.run "
            f"--nnodes={self._settings.nodes} --nproc-per-node={self._resources.size} "
            "--max-restarts=0 --rdzv-id=$SLURM_JOB_ID --rdzv-backend=c10d "
            "--rdzv-endpoint=$head:$((20000 + SLURM_JOB_ID % 20000)) "
            f"{shlex.join(arguments)}"
        )


def submit_launcher(store: Store, settings: SlurmSettings, arguments: Sequence[str]) -> str:
    """Let a job run `mixbench` with some arguments, for as long as it takes; return its number.

    A minute before its time ends the launcher stops and is queued again: what it had submitted goes
    on meanwhile, and is found again. What it prints is appended to ``runs/launcher-NUMBER.txt``.

    Raises
    ------
    UsageError
        If SLURM refuses it.
    """
    options = {
        "job-name": job_name(store, "launcher"),
        "output": str(store.runs / "launcher-%j.txt"),
        "open-mode": "append",
        "chdir": str(Path.cwd()),
        "signal": f"B:USR1@{WARNED_S}",
        "partition": settings.partition,
        "account": settings.account,
    }
    lines = [
        # Its jobs are to inherit nothing of what SLURM told it about itself.
        "job=$SLURM_JOB_ID",
        "for name in ${!SLURM_@}; do [ $name = SLURM_CONF ] || unset $name; done",
        *settings.setup,
        f"{shlex.join([sys.executable, '-m', 'mixbench', *arguments])} & launcher=$!",
        "trap 'kill -TERM $launcher; wait $launcher; scontrol requeue $job; exit' USR1",
        "trap 'kill -TERM $launcher; wait $launcher; exit' TERM",
        "wait $launcher",
    ]
    return slurm_queue.submit(options, ("--requeue", *settings.launcher), lines)
