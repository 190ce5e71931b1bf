"""Checks that methods, models and weights fit their tasks, before any training starts."""

import json
import subprocess
import sys

from mixbench.errors import UsageError
from mixbench.plan.graph import Plan
from mixbench.registry.units import find
from mixbench.storage.spec import STAGES, Stage
from mixbench.storage.store import Store


def preflight(plan: Plan, store: Store, *, fresh: bool) -> None:
    """Check in a subprocess that methods, models and weights fit their tasks.

    Only cells that can fail the check are checked: those whose method defines `check`, whose
    model the task does not declare, or whose task reads parameters from files. A cell is checked
    by its training stage, or by its evaluation if no stage trains its weights.

    Parameters
    ----------
    store
        Store whose finished stages are skipped.
    fresh
        Whether finished training stages will be run again, and so are checked too.

    Raises
    ------
    UsageError
        If a check fails; the message is that of the first failure.
    """
    stages = {}
    for key, stage in plan.stages.items():
        if _begins(stage) and _may_not_fit(stage) and (fresh or not store.finished(key)):
            unseeded = stage.label.rpartition("/")[0]  # same check for all seeds and candidates
            stages[unseeded] = STAGES.text(stage)
    if not stages:
        return
    done = subprocess.run(
        [sys.executable, "-m", "mixbench.worker.preflight"],
        input="\n".join(stages.values()),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise UsageError(f"The check of the methods failed to run: {said[-1]}")
    complaints = json.loads(done.stdout.splitlines()[-1])  # a plugin may print to stdout too
    if complaints:
        raise UsageError(complaints[0])


def _begins(stage: Stage) -> bool:
    """Return whether a stage trains a model, or evaluates one that no stage trains."""
    given = stage.kind == "evaluate" and "train" not in stage.inputs
    return stage.kind == "train" or given


def _may_not_fit(stage: Stage) -> bool:
    """Return whether a stage has a checking method, an undeclared model or parameter files."""
    files, run = stage.paths.unit_files, stage.run
    method = find("method", files.get("method", run.method.name))
    task = find("task", files.get("task", stage.identity.task.name))
    foreign = run.model not in task.declared.models
    return "check" in method.defines or foreign or bool(stage.paths.parameter_files.get("task"))
