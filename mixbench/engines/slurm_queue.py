"""SLURM's own commands: what they say of our jobs, and how jobs are submitted and cancelled.

A job is named after the stage's key and the store, so that whoever comes later finds it: another
launcher, or a user at another shell.
"""

import hashlib
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from mixbench.errors import UsageError
from mixbench.storage.store import Store

LIVE = "PENDING,RUNNING,CONFIGURING,COMPLETING,SUSPENDED,REQUEUED,RESIZING,SIGNALING,STAGE_OUT"
PATIENCE_S = 60  # for one command


class Line(NamedTuple):
    """What the queue has of a job."""

    number: str
    name: str
    state: str
    reason: str
    nodes: str

    @property
    def place(self) -> str:
        """Where the job runs, or why it waits."""
        if self.state == "PENDING":
            why = f" ({self.reason})" if self.reason != "None" else ""
            return f"job {self.number} queued{why}"
        return f"job {self.number} on {self.nodes}"


def queue() -> dict[str, Line] | None:
    """Return our jobs in the queue by their numbers; None if SLURM does not answer."""
    fields = "%i|%j|%T|%r|%N"
    command = ["squeue", "--me", "--noheader", "--states", LIVE, "--format", fields]
    done = call(command)
    if done is None or done.returncode:
        return None
    rows = (line.split("|", 4) for line in done.stdout.splitlines() if line.count("|") >= 4)
    return {number: Line(number, *rest) for number, *rest in rows}


def places(store: Store, keys: Iterable[str]) -> dict[str, str]:
    """Return where the stages' jobs are, of those that are in the queue."""
    by_name = {line.name: line.place for line in (queue() or {}).values()}
    named = {key: job_name(store, key) for key in keys}
    return {key: by_name[name] for key, name in named.items() if name in by_name}


def submit(options: Mapping[str, str], more: Sequence[str], lines: Sequence[str]) -> str:
    """Submit a job, and return its number.

    Parameters
    ----------
    options
        Of sbatch; empty ones are left to SLURM.
    more
        Further options, as sbatch takes them, which win.
    lines
        Of shell, that the job consists of.

    Raises
    ------
    UsageError
        If SLURM refuses it.
    """
    asked = [*(f"--{name}={value}" for name, value in options.items() if value), *more]
    script = "\n".join(["#!/bin/bash", *(f"#SBATCH {option}" for option in asked), *lines, ""])
    done = call(["sbatch", "--parsable"], script)
    if done is None or done.returncode:
        said = " ".join(done.stderr.split()) if done else "sbatch did not answer"
        raise UsageError(
            f"SLURM refused a job ({said}). What runs goes on: mend partition, account, time "
            "or options in the settings, and give the same command again."
        )
    return done.stdout.strip().split(";")[0]


def job_name(store: Store, key: str) -> str:
    """Return what a stage's job is called: no other stage's of any store is."""
    return f"mixbench-{hashlib.sha256(str(store.root).encode()).hexdigest()[:8]}-{key}"


def cancel_jobs(store: Store, keys: Iterable[str]) -> None:
    """Cancel the jobs of stages, whoever submitted them."""
    for key in keys:
        call(["scancel", "--me", f"--name={job_name(store, key)}"])


def call(
    command: Sequence[str], text: str | None = None
) -> "subprocess.CompletedProcess[str] | None":
    """Return what a command of SLURM's says; None if it cannot be had in time."""
    try:
        return subprocess.run(
            command, input=text, capture_output=True, text=True, check=False, timeout=PATIENCE_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
