"""Functions that call SLURM's commands to list, submit and cancel jobs.

A job is named after the stage's key and the store, so that another launcher, or a command in
another shell, can find it.
"""

import hashlib
import re
import shlex
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mixbench.engines.engine import NotNow
from mixbench.errors import UsageError
from mixbench.storage.store import Store

LIVE = "PENDING,RUNNING,CONFIGURING,COMPLETING,SUSPENDED,REQUEUED,RESIZING,SIGNALING,STAGE_OUT"
PATIENCE_S = 60  # time limit of one command
AT_ONCE = 500  # jobs that one command cancels
# What sbatch says of limits on the number of jobs, and of a controller that is busy or away.
TEMPORARY = re.compile(
    "MaxSubmit|MaxJobs|job submit limit|temporarily|try again|timed out|Unable to contact"
    "|Connection refused|Zero Bytes|Transport endpoint|GrpSubmit|too many jobs",
    re.IGNORECASE,
)


class Line(NamedTuple):
    """The entry of a job in SLURM's queue."""

    number: str
    name: str
    state: str
    reason: str
    nodes: str

    @property
    def place(self) -> str:
        """The nodes that the job runs on, or the reason why it is queued."""
        if self.state == "PENDING":
            why = f" ({self.reason})" if self.reason != "None" else ""
            return f"job {self.number} queued{why}"
        return f"job {self.number} on {self.nodes}"


def queue() -> dict[str, Line] | None:
    """Return the user's jobs in the queue by job number; None if SLURM does not answer."""
    fields = "%i|%j|%T|%r|%N"
    command = ["squeue", "--me", "--noheader", "--states", LIVE, "--format", fields]
    done = call(command)
    if done is None or done.returncode:
        return None
    rows = (line.split("|", 4) for line in done.stdout.splitlines() if line.count("|") >= 4)
    return {number: Line(number, *rest) for number, *rest in rows}


def places(store: Store) -> dict[str, str]:
    """Return where the jobs of a store's stages run, or why they are queued, by key."""
    start = job_name(store, "")
    jobs = [job for job in (queue() or {}).values() if job.name.startswith(start)]
    return {job.name.removeprefix(start): job.place for job in jobs}


class Job(NamedTuple):
    """A job to submit.

    Attributes
    ----------
    options
        Options of sbatch. They are on its command line and not in the script, where blanks and
        quotes in paths would need rules of their own.
    lines
        Shell commands that make up the job.
    """

    options: Sequence[str]
    lines: Sequence[str]

    @property
    def script(self) -> str:
        """The text of the job's shell script."""
        return "\n".join(["#!/bin/bash", *self.lines, ""])

    def __str__(self) -> str:
        """Return shell commands that submit the job."""
        return f"sbatch {shlex.join(self.options)} <<'END'\n{self.script}END"


def job(options: Mapping[str, str], more: Sequence[str], lines: Sequence[str]) -> Job:
    """Return a job.

    Parameters
    ----------
    options
        sbatch options by name, without the leading dashes; empty values are omitted.
    more
        Further sbatch options in the form ``--name=value``; they override `options`.
    lines
        Shell commands that make up the job.
    """
    asked = (f"--{name}={value}" for name, value in options.items() if value)
    return Job([*asked, *more], lines)


def submit(asked: Job) -> str:
    """Submit a job and return its number.

    Raises
    ------
    NotNow
        If SLURM takes no more jobs of the user for now, or does not answer.
    UsageError
        If SLURM refuses the job.
    """
    done = call(["sbatch", "--parsable", *asked.options], asked.script)
    if done is not None and not done.returncode:
        return done.stdout.strip().split(";")[0]
    said = " ".join(done.stderr.split()) if done else "sbatch did not answer"
    if done is None or TEMPORARY.search(said):
        raise NotNow(f"SLURM takes no more jobs for now ({said}); the other stages wait.")
    raise UsageError(
        f"SLURM refused a job ({said}). Running jobs continue. Fix partition, account, time "
        "or options under [slurm] in the settings file, and run the same command again."
    )


def file_pattern(path: Path | str) -> str:
    """Return the value of sbatch's ``--output`` for a path, in which % begins a replacement."""
    return str(path).replace("%", "%%")


def job_name(store: Store, key: str) -> str:
    """Return the name of a stage's job, which is unique across stages and stores."""
    return f"mixbench-{hashlib.sha256(str(store.root).encode()).hexdigest()[:8]}-{key}"


def cancel_jobs(store: Store, keys: Iterable[str]) -> None:
    """Cancel the user's jobs for the stages, including those that another launcher submitted.

    Raises
    ------
    UsageError
        If SLURM does not answer.
    """
    names, found = {job_name(store, key) for key in keys}, queue()
    numbers = [line.number for line in (found or {}).values() if line.name in names]
    several = (numbers[first : first + AT_ONCE] for first in range(0, len(numbers), AT_ONCE))
    if found is None or any(call(["scancel", *some]) is None for some in several):
        raise UsageError("SLURM does not answer, so jobs may go on: run the same command again.")


def call(
    command: Sequence[str], text: str | None = None
) -> "subprocess.CompletedProcess[str] | None":
    """Run a SLURM command; return None if it cannot be run or does not end within 60 s."""
    try:
        return subprocess.run(
            command, input=text, capture_output=True, text=True, check=False, timeout=PATIENCE_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
