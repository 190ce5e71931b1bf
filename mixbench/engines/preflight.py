"""Let methods refuse what cannot work before anything is trained for it."""

import json
import subprocess
import sys
from dataclasses import asdict

from mixbench.errors import UsageError
from mixbench.plan.graph import Plan
from mixbench.store import Store


def preflight(plan: Plan, store: Store, *, fresh: bool) -> None:
    """Have methods, models and weights that may not fit their tasks made, and the methods look.

    Models that a task names are known to fit it, unless they start from files.

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
    for cell, chain in zip(plan.cells, plan.chains, strict=True):
        asks = "check" in cell.method.card.defines or cell.task.files
        foreign = cell.model not in cell.task.card.declared["models"]
        if (asks or foreign) and (fresh or not store.finished(chain[-2])):
            stage = plan.stages[chain[-2]]
            specs[cell.method.label, cell.task.label] = asdict(stage)  # seeds are alike in this
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
