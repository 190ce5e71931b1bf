"""Ask whether methods and models fit their tasks, before anything is trained.

``python -m mixbench.stages.check`` reads specs of training stages as JSON from standard input and
prints a JSON list of complaints. It is a process of its own because it imports torch, which the
launcher does not.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mixbench.contract import Evaluation
from mixbench.errors import MixbenchError
from mixbench.stages.job import make_method, make_task


def complaint(spec: Mapping[str, Any]) -> str:
    """Return what keeps the method of a spec from training its model, or an empty text."""
    try:
        task, places = make_task(spec), spec["places"]
        held_out = None
        if "data" in places and not isinstance(task, Evaluation):  # which has a test part alone
            held_out = task.load("validation", Path(places["data"]), spec["identity"]["seed"])
        method = make_method(spec)
        method.check(task, held_out)
        model = task.build(spec["identity"]["model"])
        method.bind(model, task)
        if not task.needs.keys() & spec["inputs"].keys():  # they are not trained yet
            task.start(model, {})
    except MixbenchError as error:
        return f"{spec['label']}: {error}"
    return ""


if __name__ == "__main__":
    found = [complaint(spec) for spec in json.load(sys.stdin)]
    sys.stdout.write("\n" + json.dumps([text for text in found if text]) + "\n")
