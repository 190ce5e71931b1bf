"""Let methods refuse what cannot work before anything is trained for it."""

import json
import subprocess
import sys
from dataclasses import asdict

from mixbench.errors import UsageError
from mixbench.plan.graph import Plan, Stage
from mixbench.registry.cards import Kind
from mixbench.registry.units import find
from mixbench.store import Store

KINDS: tuple[Kind, Kind] = ("method", "task")


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
    specs = {}
    for key, stage in plan.stages.items():
        if _begins(stage) and _may_not_fit(stage) and (fresh or not store.finished(key)):
            unseeded = stage.label.rpartition("/")[0]  # seeds, or candidates, are alike in this
            specs[unseeded] = asdict(stage)
    if not specs:
        return
    done = subprocess.run(
        [sys.executable, "-m", "mixbench.stages.check"],
        input=json.dumps(list(specs.values())),
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
    method, task = (find(kind, _called(stage, kind)) for kind in KINDS)
    foreign = stage.identity["model"] not in task.declared["models"]
    starts = any(place.startswith("task.") for place in stage.places)
    return "check" in method.defines or foreign or starts


def _called(stage: Stage, kind: Kind) -> str:
    """Return the name of a stage's unit, or its file."""
    return str(stage.places.get(kind, stage.identity[kind]["name"]))
