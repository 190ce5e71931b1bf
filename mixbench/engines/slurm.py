"""The SLURM engine, which runs stages as jobs by calling sbatch, squeue, scontrol and scancel.

A launcher finds the jobs of an earlier launcher by their names. It needs neither SLURM accounting
nor a file with job numbers. SLURM does not requeue the jobs of stages; the launcher submits them
again, and they resume from their checkpoints. The launcher itself can be a job, which SLURM does
requeue.
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
from mixbench.engines.engine import Ended, NotNow
from mixbench.engines.settings import SlurmSettings
from mixbench.engines.slurm_queue import Job, Line, file_pattern, job_name
from mixbench.errors import UsageError
from mixbench.storage.spec import DISTRIBUTED_KINDS, StageKind
from mixbench.storage.store import Store

WARNED_S = 60  # SLURM signals a job this long before its time limit, to write a checkpoint
FIRST_PAUSE_S, LONGEST_PAUSE_S = 10.0, 300.0  # after a refusal for now, doubled each time


class Resources(NamedTuple):
    """The GPUs that a stage's job requests.

    Attributes
    ----------
    size
        Number of GPUs per cell and node; number of processes if the cluster has no GPUs.
    gres
        Value of sbatch's ``--gres``; empty if the job requests no GPU.
    gpus
        Number of GPUs that the job holds on each node; a fraction if stages share GPUs.
    """

    size: int
    gres: str
    gpus: float

    @property
    def alone(self) -> "Resources":
        """What a stage of one process requests, such as an evaluation: one GPU at most."""
        return Resources(1, re.sub(r"(gpu(?::\w+)?):\d+$", r"\1:1", self.gres), min(self.gpus, 1.0))


def resources_of(settings: SlurmSettings, size: int = 1) -> Resources:
    """Return the GPUs that jobs request: those of the settings, or by what the cluster has.

    Raises
    ------
    UsageError
        If SLURM is not installed on this machine, or stages cannot share the cluster's GPUs.
    """
    if shutil.which("sbatch") is None:
        raise UsageError(
            "--engine slurm: sbatch is not installed on this machine. Run the command on a login "
            "node of the cluster, or use --engine local."
        )
    if settings.gres:
        number = re.fullmatch(r"gpu(?::\w+)?:(\d+)", settings.gres)
        return Resources(size, settings.gres, float(number[1]) if number else 1.0)
    done = slurm_queue.call(["sinfo", "--noheader", "--format", "%G"])
    if done is None or done.returncode:
        raise UsageError(
            "--engine slurm: sinfo does not say which GPUs the cluster has. Wait until its "
            "controller answers, or set gres under [slurm] in the settings file."
        )
    there = dict(re.findall(r"(gpu|shard)(?::\w+)?:(\d+)", done.stdout))
    if settings.jobs_per_gpu > 1:
        if "shard" not in there or size > 1:
            raise UsageError(
                "jobs_per_gpu above 1 needs SLURM's GPU shards and one GPU per cell. Set "
                "jobs_per_gpu to 1, or set gres under [slurm] in the settings file."
            )
        shards = max(int(there["shard"]) // int(there["gpu"]) // settings.jobs_per_gpu, 1)
        return Resources(size, f"shard:{shards}", 1 / settings.jobs_per_gpu)
    return Resources(size, f"gpu:{size}", size) if "gpu" in there else Resources(size, "", 0.0)


@dataclass
class _Job:
    number: str
    submitted: float
    line: Line | None = None
    gone: float | None = None  # time since which it is missing from the queue


class SlurmEngine:
    """Run each stage as a SLURM job.

    Parameters
    ----------
    timeout_s
        Time limit per stage, in seconds; None to use the settings' or the partition's limit.
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
        self._closed_until = float("-inf")  # after a refusal for now
        self._pause_s = FIRST_PAUSE_S
        self.gpus, self.gpus_alone = resources.gpus, resources.alone.gpus
        self.num_slots = settings.max_jobs

    @property
    def free(self) -> bool:
        """Whether another job can be submitted within `max_jobs` and what SLURM allows."""
        closed = time.monotonic() < self._closed_until
        return len(self._jobs) < self._settings.max_jobs and not closed

    def adopt(self, keys: Iterable[str]) -> set[str]:
        """Return those of the stages that already have a job in the queue."""
        queue = self._queue()
        if queue is None:
            raise NotNow(
                "SLURM's controller does not answer, so the running stages cannot be determined. "
                "Run the same command again when squeue works."
            )
        by_name = {line.name: line for line in queue.values()}
        found = {key: line for key in keys if (line := by_name.get(job_name(self._store, key)))}
        for key, line in found.items():
            self._jobs[key] = _Job(line.number, time.monotonic(), line)
        return set(found)

    def start(self, keys: Sequence[str], log: Path) -> None:
        """Submit the stage's job.

        Raises
        ------
        NotNow
            If SLURM takes no more jobs for now: after a pause, which is doubled each time, `free`
            is true again.
        UsageError
            If SLURM refuses the stage's job.
        """
        (key,) = keys  # a job runs one stage
        try:
            if self._pause_s > FIRST_PAUSE_S and self.adopt([key]):
                self._pause_s = FIRST_PAUSE_S
                return  # the job was submitted, but sbatch did not say so in time
            number = slurm_queue.submit(self.job(key, self._store.spec(key).stage.kind, log))
        except NotNow:
            self._closed_until = time.monotonic() + self._pause_s
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
            raise
        self._pause_s = FIRST_PAUSE_S
        self._jobs[key] = _Job(number, time.monotonic())

    def ended(self) -> list[Ended]:
        """Return the stages whose jobs left the queue and whose files have arrived in the store.

        If no file arrives, a stage is returned `settle_s` seconds after its job left the queue. A
        queue listing from before the submission, or one that failed, is ignored.
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
        """Return the nodes that a stage runs on, or the reason why it is queued."""
        job = self._jobs.get(key)
        if job is None:
            return ""
        return job.line.place if job.line else f"job {job.number} queued"

    def cancel(self, key: str) -> None:
        """Cancel a stage's job."""
        if key in self._jobs:
            slurm_queue.call(["scancel", self._jobs[key].number])

    def stop(self) -> None:
        """Leave the jobs running; the same command adopts them again."""

    def _queue(self) -> dict[str, Line] | None:
        self._looked = time.monotonic()
        return slurm_queue.queue()

    def _end(self, key: str, job: _Job) -> Ended:
        """Return how a job ended, if SLURM still knows it."""
        done = slurm_queue.call(["scontrol", "--oneliner", "show", "job", job.number])
        facts = dict(re.findall(r"(\w+)=(\S+)", done.stdout)) if done else {}
        if facts.get("JobState") == "OUT_OF_MEMORY":
            return Ended(key, None, "out of memory")
        if facts.get("JobState") == "CANCELLED":
            return Ended(key, None, "cancelled")
        return Ended(key, None)

    def job(self, key: str, kind: StageKind, log: Path) -> Job:
        """Return the job of a stage."""
        asked, together = self._settings, kind in DISTRIBUTED_KINDS
        resources = self._resources if together else self._resources.alone
        gang = asked.nodes > 1 and together
        minutes = f"{max(round((self._timeout_s or 0) / 60), 1)}"
        options = {
            "job-name": job_name(self._store, key),
            "output": file_pattern(log),
            "open-mode": "append",
            "nodes": str(asked.nodes if gang else 1),
            "ntasks-per-node": "1",
            "cpus-per-task": str(asked.cpus),
            "signal": f"{'' if gang else 'B:'}TERM@{WARNED_S}",
            "partition": asked.partition,
            "account": asked.account,
            "time": minutes if self._timeout_s else asked.time,
            "mem": asked.memory,
            "gres": resources.gres,
        }
        command = engine.stage_command(self._store.root, key)
        words = self._gang(command) if gang else f"exec {shlex.join(command)}"
        return slurm_queue.job(options, ("--no-requeue", *asked.options), [*asked.setup, words])

    def _gang(self, command: Sequence[str]) -> str:
        """Return the shell commands that start torchrun on every node of a job."""
        python, _safe, *arguments = command
        return (
            "export PYTHONSAFEPATH=1\n"  # as -P, also for the processes that torchrun starts
            'first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)\n'
            'head=$(scontrol show node "$first" | sed -n "s/.*NodeAddr=\\([^ ]*\\).*/\\1/p")\n'
            f"exec srun --kill-on-bad-exit=1 {shlex.quote(python)} -m torch.distributed.run "
            f"--nnodes={self._settings.nodes} --nproc-per-node={self._resources.size} "
            "--max-restarts=0 --rdzv-id=$SLURM_JOB_ID --rdzv-backend=c10d "
            "--rdzv-endpoint=$head:$((20000 + SLURM_JOB_ID % 20000)) "
            f"{shlex.join(arguments)}"
        )


def submit_launcher(store: Store, settings: SlurmSettings, arguments: Sequence[str]) -> str:
    """Submit a job that runs `mixbench` with the given arguments, and return its number.

    One minute before its time limit, the launcher stops and SLURM requeues it. The jobs that it
    submitted keep running, and it adopts them when it starts again. Its output is appended to
    ``runs/launcher-NUMBER.txt``.

    Raises
    ------
    UsageError
        If SLURM refuses the launcher's job.
    """
    options = {
        "job-name": job_name(store, "launcher"),
        "output": f"{file_pattern(store.runs)}/launcher-%j.txt",
        "open-mode": "append",
        "chdir": str(Path.cwd()),
        "signal": f"B:USR1@{WARNED_S}",
        "partition": settings.partition,
        "account": settings.account,
    }
    lines = [
        # The jobs that the launcher submits must not inherit its own SLURM variables.
        "job=$SLURM_JOB_ID",
        "for name in ${!SLURM_@}; do [ $name = SLURM_CONF ] || unset $name; done",
        *settings.setup,
        f"{shlex.join([sys.executable, '-P', '-m', 'mixbench', *arguments])} & launcher=$!",
        "trap 'kill -TERM $launcher; wait $launcher; scontrol requeue $job; exit' USR1",
        "trap 'kill -TERM $launcher; wait $launcher; exit' TERM",
        "wait $launcher",
    ]
    return slurm_queue.submit(slurm_queue.job(options, ("--requeue", *settings.launcher), lines))
