"""Functions that call SLURM's commands to list, submit and cancel jobs.

A job is named after the stage's key and the store, so that another launcher, or a command in
another shell, can find it.
"""

import hashlib
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from mixbench.errors import UsageError
from mixbench.storage.store import Store

LIVE = "PENDING,RUNNING,CONFIGURING,COMPLETING,SUSPENDED,REQUEUED,RESIZING,SIGNALING,STAGE_OUT"
PATIENCE_S = 60  # time limit of one command


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


def places(store: Store, keys: Iterable[str]) -> dict[str, str]:
    """Return the nodes or the queue status of the stages with a job in the queue, by key."""
    by_name = {line.name: line.place for line in (queue() or {}).values()}
    named = {key: job_name(store, key) for key in keys}
    return {key: by_name[name] for key, name in named.items() if name in by_name}


def submit(options: Mapping[str, str], more: Sequence[str], lines: Sequence[str]) -> str:
    """Submit a job and return its number.

    Parameters
    ----------
    options
        sbatch options by name, without the leading dashes; empty values are omitted.
    more
        Further sbatch options in the form ``--name=value``; they override `options`.
    lines
        Shell commands that make up the job.

    Raises
    ------
    UsageError
        If SLURM refuses the job.
    """
    asked = [*(f"--{name}={value}" for name, value in options.items() if value), *more]
    script = "\n".join(["#!/bin/bash", *(f"#SBATCH {option}" for option in asked), *lines, ""])
    done = call(["sbatch", "--parsable"], script)
    if done is None or done.returncode:
        said = " ".join(done.stderr.split()) if done else "sbatch did not answer"
        raise UsageError(
            f"SLURM refused a job ({said}). Running jobs continue. Fix partition, account, time "
            "or options under [slurm] in the settings file, and run the same command again."
        )
    return done.stdout.strip().split(";")[0]


def job_name(store: Store, key: str) -> str:
    """Return the name of a stage's job, which is unique across stages and stores."""
    return f"mixbench-{hashlib.sha256(str(store.root).encode()).hexdigest()[:8]}-{key}"


def cancel_jobs(store: Store, keys: Iterable[str]) -> None:
    """Cancel the user's jobs for the stages, including those that another launcher submitted."""
    for key in keys:
        call(["scancel", "--me", f"--name={job_name(store, key)}"])


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
