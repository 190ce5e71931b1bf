"""Let methods refuse what cannot work before anything is trained for it."""

import json
import subprocess
import sys
from dataclasses import asdict

from mixbench.engines.scheduler import Board
from mixbench.errors import UsageError


def preflight(board: Board) -> None:
    """Have every method that defines `check` look at the tasks it is to be trained on.

    Raises
    ------
    UsageError
        With the first complaint.
    """
    specs = {}
    for cell, chain in zip(board.plan.cells, board.plan.chains, strict=True):
        asks = "check" in cell.method.card.defines
        if asks and board.status(chain[-2]) == "waiting":
            stage = board.plan.stages[chain[-2]]
            specs[cell.method.label, cell.task.label] = asdict(stage)  # seeds do not differ in this
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
        raise UsageError(f"The methods cannot be checked: {done.stderr.strip().splitlines()[-1]}")
    complaints = json.loads(done.stdout)
    if complaints:
        raise UsageError(complaints[0])
