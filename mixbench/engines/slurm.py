"""Place stages as jobs of a SLURM cluster, by sbatch, squeue, scontrol and scancel alone.

A job is named after the stage's key and the store, so that a launcher which comes later finds what
an earlier one submitted; neither accounting nor a handle on the disk is needed. Jobs are not
requeued by SLURM, but submitted again by the launcher, from their checkpoints.
"""

import hashlib
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mixbench.engines import engine
from mixbench.engines.engine import Ended
from mixbench.engines.settings import SlurmSettings
from mixbench.errors import MixbenchError, UsageError
from mixbench.store import Store, read_json

WARNED_S = 60  # before a time limit or a preemption, so that a checkpoint can be written
LIVE = "PENDING,RUNNING,CONFIGURING,COMPLETING,SUSPENDED,REQUEUED,RESIZING,SIGNALING,STAGE_OUT"
PATIENCE_S = 60  # for one command of SLURM's


class _Line(NamedTuple):
    """What the queue has of a job."""

    state: str
    reason: str
    nodes: str


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
    done = _call(["sinfo", "--noheader", "--format", "%G"])
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
    line: _Line | None = None
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
        by_name = {name: (number, line) for number, (name, line) in queue.items()}
        for key in keys:
            if job_name(self._store, key) in by_name:
                number, line = by_name[job_name(self._store, key)]
                self._jobs[key] = _Job(number, time.monotonic(), line)
        return set(self._jobs)

    def start(self, key: str, log: Path) -> None:
        """Submit the stage's job.

        Raises
        ------
        UsageError
            If SLURM refuses it.
        """
        done = _call(["sbatch", "--parsable"], self._script(key, log))
        if done is None or done.returncode:
            said = " ".join(done.stderr.split()) if done else "sbatch did not answer"
            raise UsageError(
                f"SLURM refused a job ({said}). What runs goes on: mend partition, account, time "
                "or options in the settings, and give the same command again."
            )
        self._jobs[key] = _Job(done.stdout.strip().split(";")[0], time.monotonic())

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
            job.line = queue[job.number][1] if job.number in queue else None
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
        if job.line is None or job.line.state == "PENDING":
            why = f" ({job.line.reason})" if job.line and job.line.reason != "None" else ""
            return f"job {job.number} queued{why}"
        return f"job {job.number} on {job.line.nodes}"

    def cancel(self, key: str) -> None:
        """Cancel a stage's job."""
        if key in self._jobs:
            _call(["scancel", self._jobs[key].number])

    def stop(self) -> None:
        """Leave the jobs to SLURM: the same command finds them again."""

    def _queue(self) -> dict[str, tuple[str, _Line]] | None:
        """Return our jobs in the queue by their numbers; None if SLURM does not answer."""
        self._looked = time.monotonic()
        done = _call([
            "squeue",
            "--me",
            "--noheader",
            "--states",
            LIVE,
            "--format",
            "%i|%j|%T|%r|%N",
        ])
        if done is None or done.returncode:
            return None
        rows = (line.split("|", 4) for line in done.stdout.splitlines() if line.count("|") >= 4)
        return {number: (name, _Line(*rest)) for number, name, *rest in rows}

    def _end(self, key: str, job: _Job) -> Ended:
        """Return how a job ended, as far as SLURM remembers it."""
        done = _call(["scontrol", "--oneliner", "show", "job", job.number])
        facts = dict(re.findall(r"(\w+)=(\S+)", done.stdout)) if done else {}
        if facts.get("JobState") == "OUT_OF_MEMORY":
            return Ended(key, None, "out of memory")
        if facts.get("JobState") == "CANCELLED":
            return Ended(key, None, "cancelled")
        return Ended(key, None)

    def _script(self, key: str, log: Path) -> str:
        """Return a stage's job as sbatch takes it."""
        asked = self._settings
        gang = asked.nodes > 1 and read_json(self._store.work(key) / "spec.json")["kind"] == "train"
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
        lines = [f"#SBATCH --{name}={value}" for name, value in options.items() if value]
        lines += ["#SBATCH --no-requeue", *(f"#SBATCH {option}" for option in asked.options)]
        command = engine.stage_command(self._store.root, key)
        words = self._gang(command) if gang else f"exec {shlex.join(command)}"
        return "\n".join(["#!/bin/bash", *lines, *asked.setup, words, ""])

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


def job_name(store: Store, key: str) -> str:
    """Return what a stage's job is called: no other stage's of any store is."""
    return f"mixbench-{hashlib.sha256(str(store.root).encode()).hexdigest()[:8]}-{key}"


def cancel_jobs(store: Store, keys: Iterable[str]) -> None:
    """Cancel the jobs of stages, whoever submitted them."""
    for key in keys:
        _call(["scancel", "--me", f"--name={job_name(store, key)}"])


def _call(
    command: Sequence[str], text: str | None = None
) -> "subprocess.CompletedProcess[str] | None":
    """Return what a command of SLURM's says; None if it cannot be had in time."""
    try:
        return subprocess.run(
            command, input=text, capture_output=True, text=True, check=False, timeout=PATIENCE_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
