"""From a store to a suite's folder: the records that answer it, to be sent as a pull request."""

import shutil
from pathlib import Path
from typing import NamedTuple

from mixbench.errors import UsageError
from mixbench.leaderboard.build import RECORDS
from mixbench.leaderboard.suites import Suite
from mixbench.leaderboard.verification import PREDICTIONS
from mixbench.plan.graph import plan
from mixbench.plan.request import cells_of
from mixbench.records.evidence import record_path
from mixbench.records.rescoring import predictions_of
from mixbench.records.schema import parse, to_json
from mixbench.store import Store, write_bytes


class Submitted(NamedTuple):
    """What a submission holds, and the cells of which the store has no record."""

    written: list[Path]
    missing: list[str]


def submit(folder: Path, suite: Suite, store: Store, *, predictions: bool) -> Submitted:
    """Copy the store's records of a suite's cells into its folder; what is there stays.

    Parameters
    ----------
    predictions
        Whether to copy what the models predicted, too, from which others recompute the numbers.

    Raises
    ------
    UsageError
        If the store has no record of the suite, or one of other code than a cell's now.
    """
    cells = [cell for request in suite.requests() for cell in cells_of(request)]
    planned = plan(cells)
    written, missing, found = [], [], 0
    for cell, chain in zip(planned.cells, planned.chains, strict=True):
        source = record_path(store, cell, chain[-1])
        if not source.exists():
            missing.append(cell.label)
            continue
        found += 1
        record = parse(source.read_text(encoding="utf-8"), str(source))
        target = folder / RECORDS / source.relative_to(store.records)
        if not target.exists():
            write_bytes(target, to_json(record).encode())
            written.append(target)
        artifact = predictions_of(record)
        if predictions and artifact:
            copy = folder / PREDICTIONS / f"{artifact.sha256[:16]}.safetensors"
            copy.parent.mkdir(exist_ok=True)
            if not copy.exists():
                shutil.copyfile(store.root / artifact.path, copy)
                written.append(copy)
    if not found:
        raise UsageError(
            f"The store {store.root} has no record of this suite's cells as the code is now: run "
            f"`mixbench run --suite {folder.name}`."
        )
    return Submitted(written, missing)
