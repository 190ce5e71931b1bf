"""The choice among trainings that differ by their recipes, by what the held-out images say."""

import os
from typing import Any

from mixbench.errors import Diverged
from mixbench.stages.job import Job
from mixbench.store import read_json


def tune(job: Job) -> dict[str, Any]:
    """Keep the weights of the candidate that ended best on the validation part.

    Candidates that diverged are not there, and not chosen; of equals the first is.

    Raises
    ------
    Diverged
        If no candidate is there.
    """
    metric = next(metric for metric in job.task.metrics if metric.primary)
    sign = 1 if metric.higher_is_better else -1
    there = {role: key for role, key in job.spec["inputs"].items() if job.store.finished(key)}
    curves = {role: read_json(job.store.path(key, "curve.json")) for role, key in there.items()}
    values = {role: curve[-1][f"validation_{metric.name}"] for role, curve in curves.items()}
    if not values:
        raise Diverged("Every candidate diverged.")
    best = max(values, key=lambda role: sign * values[role])
    manifest = job.store.manifest(there[best])
    for name in manifest["files"]:
        kept = job.built / name
        kept.parent.mkdir(exist_ok=True)
        os.link(job.store.path(there[best], name), kept)
    tuning = {
        "metric": metric.name,
        "value": values[best],
        "chosen": best,
        "values": values,
        "diverged": [role for role in job.spec["inputs"] if role not in there],
    }
    return {
        "result": {**manifest["result"], "tuning": tuning},
        "steps": manifest["steps"],
        "cost": {"wall_s": 0.0},
    }
