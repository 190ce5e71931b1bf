"""Let methods refuse what cannot work before anything is trained for it."""

import json
import subprocess
import sys

from mixbench.errors import UsageError
from mixbench.plan.graph import Plan
from mixbench.registry.units import find
from mixbench.storage.spec import STAGES, Stage
from mixbench.storage.store import Store


def preflight(plan: Plan, store: Store, *, fresh: bool) -> None:
    """Have methods, models and weights that may not fit their tasks made, and the methods look.

    Models that a task names are known to fit it, unless they start from files. A cell is looked at
    where it begins: where it is trained, or evaluated if it has its weights from elsewhere.

    Parameters
    ----------
    fresh
        Whether finished training stages will be run again.

    Raises
    ------
    UsageError
        With the first complaint.
    """
    stages = {}
    for key, stage in plan.stages.items():
        if _begins(stage) and _may_not_fit(stage) and (fresh or not store.finished(key)):
            unseeded = stage.label.rpartition("/")[0]  # seeds, or candidates, are alike in this
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
        raise UsageError(f"The methods cannot be checked: {said[-1]}")
    complaints = json.loads(done.stdout.splitlines()[-1])  # a plugin may print as well
    if complaints:
        raise UsageError(complaints[0])


def _begins(stage: Stage) -> bool:
    """Tell whether a stage trains a model, or evaluates one that no stage trains."""
    given = stage.kind == "evaluate" and "train" not in stage.inputs
    return stage.kind == "train" or given


def _may_not_fit(stage: Stage) -> bool:
    """Tell whether a training has a method that checks, a foreign model, or files to start from."""
    files, run = stage.paths.unit_files, stage.run
    method = find("method", files.get("method", run.method.name))
    task = find("task", files.get("task", stage.identity.task.name))
    foreign = run.model not in task.declared.models
    return "check" in method.defines or foreign or bool(stage.paths.parameter_files.get("task"))
