"""Copy the records of a suite from a store into the suite's folder, for a pull request."""

import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from mixbench.errors import Damaged, UsageError
from mixbench.leaderboard.evidence import RECORDS, artifact_path
from mixbench.leaderboard.suite import suite_cells
from mixbench.plan.graph import plan
from mixbench.records.schema import Artifact, Record, parse
from mixbench.records.writer import current_record, record_path
from mixbench.storage.files import write_bytes
from mixbench.storage.store import Store


class Submitted(NamedTuple):
    """The result of a submission.

    Attributes
    ----------
    written
        Files that were copied.
    missing
        Labels of the suite's cells without a record in the store.
    records
        The suite's records in the store.
    """

    written: list[Path]
    missing: list[str]
    records: list[Record]


def submit(folder: Path, store: Store, *, predictions: float) -> Submitted:
    """Copy the store's records and learning curves of a suite's cells into the suite's folder.

    Existing files are not overwritten.

    Parameters
    ----------
    folder
        Folder of the suite.
    store
        Store with the records.
    predictions
        Number of seeds, from the first, of which all predictions of the models are copied. Of the
        other seeds, compact predictions are copied if the task has them. From both, others can
        recompute the metrics.

    Raises
    ------
    UsageError
        If the store has no record of the suite's cells for the current code.
    """
    planned = plan(suite_cells(folder))
    written: list[Path] = []
    missing, found = [], []
    for number, (cell, chain) in enumerate(zip(planned.cells, planned.chains, strict=True)):
        source, key = record_path(store, planned, number), chain[-1][:8]
        record = current_record(store, planned, number)
        if record is None:
            missing.append(cell.label)
            continue
        found.append(record)
        name = f"{cell.model}.{cell.protocol}.s{cell.seed}.{key}.json"
        target = folder / RECORDS / source.parent.relative_to(store.records) / name
        if not target.exists():
            _remove_failed(target, record)
            write_bytes(target, record.written.encode())
            written.append(target)
        wanted = {"curve", "predictions" if cell.seed < predictions else "compact_predictions"}
        written += _copied(folder, store, (a for a in record.artifacts if a.role in wanted))
    if not found:
        raise UsageError(
            f"The store {store.root} has no record of this suite for the current code: run "
            f"`mixbench run --suite {folder.name}`."
        )
    return Submitted(written, missing, found)


def _remove_failed(target: Path, record: Record) -> None:
    """Remove the record of an earlier attempt of the same cell that has no result."""
    cell = record.cell.rpartition("/")[0]
    for path in target.parent.glob("*.json"):
        with suppress(Damaged):
            other = parse(path.read_text(encoding="utf-8", errors="replace"), str(path))
            if other.status != "ok" and other.cell.rpartition("/")[0] == cell:
                path.unlink()


def _copied(folder: Path, store: Store, artifacts: Iterable[Artifact]) -> Iterator[Path]:
    """Copy artifacts that a suite's folder does not have yet; yield the paths of the copies."""
    for artifact in artifacts:
        copy = artifact_path(folder, artifact)
        if not copy.exists():
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(store.root / artifact.path, copy)
            yield copy
