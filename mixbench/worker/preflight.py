"""Checks that methods and models fit their tasks, before any training starts.

``python -m mixbench.worker.preflight`` reads stages as JSON from standard input, one per line, and
prints a JSON list of error messages. It is a separate process because it imports torch, which the
launcher does not.
"""

import json
import sys
from pathlib import Path

from mixbench.contract import Evaluation
from mixbench.errors import MixbenchError
from mixbench.storage.spec import STAGES, Stage
from mixbench.worker.job import make_method, make_task


def complaint(stage: Stage) -> str:
    """Return the error that a stage's method or model raises for its task, or an empty text."""
    try:
        task, run = make_task(stage), stage.run
        held_out = None
        if stage.paths.data and not isinstance(task, Evaluation):  # which has only a test split
            held_out = task.load("validation", Path(stage.paths.data), run.seed)
        method = make_method(stage)
        method.check(task, held_out)
        model = task.build(run.model)
        method.bind(model, task)
        if not task.needs.keys() & stage.inputs.keys():  # they are not trained yet
            task.start(model, {})
    except MixbenchError as error:
        return f"{stage.label}: {error}"
    return ""


if __name__ == "__main__":
    stages = [STAGES.parse(line, "a stage") for line in sys.stdin.read().splitlines()]
    complaints = [text for text in map(complaint, stages) if text]
    sys.stdout.write("\n" + json.dumps(complaints) + "\n")
