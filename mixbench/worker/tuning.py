"""Selection of the best candidate of a grid search by its validation result."""

from dataclasses import replace

from mixbench.errors import Diverged
from mixbench.storage.curves import read_curve
from mixbench.storage.files import link_or_copy
from mixbench.storage.manifest import TrainingResult, TuningResult
from mixbench.worker.job import Job, training_result


def tune(job: Job) -> TrainingResult:
    """Keep the files of the candidate with the best final result on the validation split.

    Candidates that diverged are not selected. Among equal candidates, the first is selected.

    Raises
    ------
    Diverged
        If all candidates diverged.
    """
    metric = next(metric for metric in job.task.metrics if metric.primary)
    sign = 1 if metric.higher_is_better else -1
    inputs, store = job.stage.inputs, job.store
    finished = {role: key for role, key in inputs.items() if store.finished(key)}
    curves = {role: read_curve(store.checked(key, "curve.json")) for role, key in finished.items()}
    values = {role: curve[-1][f"validation_{metric.name}"] for role, curve in curves.items()}
    if not values:
        raise Diverged("Every candidate diverged.")
    best = max(values, key=lambda role: sign * values[role])
    key = finished[best]
    for name in store.manifest(key).files:
        kept = job.built / name
        kept.parent.mkdir(exist_ok=True)
        link_or_copy(store.checked(key, name), kept)
    diverged = tuple(role for role in inputs if role not in finished)
    tuning = TuningResult(metric.name, values[best], best, values, diverged)
    return replace(training_result(key, store), tuning=tuning)
