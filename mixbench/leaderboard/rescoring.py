"""Recompute metrics from stored predictions with the current code."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mixbench.contract.loading import make_task
from mixbench.datasets.locate import DataSource, locate
from mixbench.declare import Metric
from mixbench.errors import Damaged, DataError, one_line
from mixbench.records.declared import declaration
from mixbench.records.items import pack
from mixbench.records.schema import Artifact, MetricRecord, Record, to_json
from mixbench.registry.fingerprint import digest
from mixbench.registry.units import find
from mixbench.storage.files import now, write_bytes
from mixbench.storage.store import Store

if TYPE_CHECKING:
    from torch import Tensor

    from mixbench.contract import Score, Task

TARGETS = "targets"  # name of the targets in a predictions file
COMPACT = "compact_predictions"


def predictions_of(record: Record, *, compact: bool = False) -> Artifact | None:
    """Return the artifact with a record's test predictions; None if there is none."""
    role = COMPACT if compact else "predictions"
    return next((a for a in record.artifacts if a.role == role), None)


def read_predictions(artifact: Artifact, path: Path) -> "dict[str, Tensor]":
    """Read predictions, with their targets unless they are compact, after checking the file.

    Parameters
    ----------
    artifact
        What the record says about the file.
    path
        Path of the file.

    Raises
    ------
    Damaged
        If the SHA-256 digest of the file differs from that in the record, or if it is no
        safetensors file with predictions and targets.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != artifact.sha256:
        raise Damaged(f"{path} is not the predictions file that the record names.")
    try:
        found = load(content)
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise Damaged(f"{path} is not a safetensors file ({error}).") from error
    if artifact.role != COMPACT and (TARGETS not in found or len(found) < 2):
        raise Damaged(f"{path} must hold predictions and {TARGETS} (got {', '.join(found)}).")
    return found


def located(record: Record) -> DataSource | None:
    """Return the data that a record was tested on, if it is on this machine in its usual folder."""
    try:
        return locate(find("task", record.task.name), None, record.protocol, record.task.parameters)
    except DataError:
        return None


def recomputed(
    record: Record, artifact: Artifact, path: Path, source: DataSource
) -> list[MetricRecord]:
    """Compute a record's metrics after the last epoch again, from submitted predictions.

    Parameters
    ----------
    record
        Record of a built-in task.
    artifact
        The record's predictions, or its compact predictions.
    path
        Path of their file.
    source
        The data that the record was tested on.

    Raises
    ------
    Damaged
        If the file does not hold predictions for the true targets.
    """
    predictions, task = read_predictions(artifact, path), _task(record)
    assert source.folder is not None
    targets = task.load("test", source.folder, record.seed).targets
    found = predictions.setdefault(TARGETS, targets)
    if (found.dtype, found.shape) != (targets.dtype, targets.shape) or not found.equal(targets):
        raise Damaged("the targets in the predictions file differ from those of the data")
    if strange := [name for name, tensor in predictions.items() if len(tensor) != len(targets)]:
        raise Damaged(f"{strange[0]} must have {len(targets)} rows, one for each test item")
    classes = [*map(one_line, task.class_names(source.folder))]
    try:
        return scored(record, predictions, classes)
    except Exception as error:  # tensors of a stranger, in which anything can be wrong
        raise Damaged(f"the predictions cannot be scored ({one_line(str(error))})") from error


def _task(record: Record) -> "Task":
    """Return the task of a record, with the parameters of its base task if it is an evaluation."""
    base = record.base_task.parameters if record.base_task else None
    return make_task(find("task", record.task.name), record.task.parameters, base)


def scored(
    record: Record, predictions: "dict[str, Tensor]", classes: Sequence[str] = ()
) -> list[MetricRecord]:
    """Compute a record's metrics after the last epoch again.

    Parameters
    ----------
    record
        Record whose task defines the metrics.
    predictions
        Outputs for the test items by name, and their targets under ``targets``.
    classes
        Names of the classes; by default those of the record.
    """
    task = _task(record)
    outputs = {name: value for name, value in predictions.items() if name != TARGETS}
    scores = task.score(outputs, predictions[TARGETS])
    declared = {metric.name: metric for metric in task.metrics}
    return list(_metrics(record, declared, scores, len(predictions[TARGETS]), classes))


def _metrics(
    record: Record,
    declared: Mapping[str, Metric],
    scores: "dict[str, Score]",
    number: int,
    classes: Sequence[str],
) -> Iterator[MetricRecord]:
    earlier = {metric.name: metric for metric in record.metrics if metric.at == "last"}
    for name, score in scores.items():
        known, metric = earlier.get(name), declared[name]
        by_class = None
        if score.by_class is not None and known and known.by_class:
            names = classes or list(known.by_class)
            by_class = dict(zip(names, score.by_class, strict=True))
        yield MetricRecord(
            **declaration(metric),
            value=score.value,
            at="last",
            n=number,
            stderr=score.stderr,
            by_class=by_class,
            items=pack(score.items.numpy()) if metric.primary and score.items is not None else None,
        )


def score_again(store: Store, record: Record) -> Path | None:
    """Score a record's predictions again; write a new record if anything differs, return its path.

    The new record has the task's version of now, and only the metrics after the last epoch, because
    predictions at other points of training are not stored. Return None if metrics and version are
    equal.

    Raises
    ------
    Damaged
        If the predictions are missing or damaged.
    """
    artifact = predictions_of(record)
    if artifact is None or not (store.root / artifact.path).exists():
        raise Damaged(
            f"The predictions of {record.cell} are no longer in {store.root}: run the cell again."
        )
    anew = scored(record, read_predictions(artifact, store.root / artifact.path))
    card, known = find("task", record.task.name), [m for m in record.metrics if m.at == "last"]
    if anew == known and card.version == record.task.version:
        return None
    task = record.task.model_copy(update={"version": card.version, "code": digest(card.path)})
    changed = {"metrics": anew, "task": task, "created": now(), "rescored": record.digest}
    scored_now = record.model_copy(update=changed).model_dump(by_alias=True)
    new = Record.model_validate(scored_now)
    name = f"{record.model}.{record.protocol}.s{record.seed}.{new.digest[:8]}.json"
    path = store.records / record.task.name / record.method.name / name
    write_bytes(path, to_json(new).encode())
    return path
