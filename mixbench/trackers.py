"""Log finished cells to CSV files, TensorBoard or Weights & Biases, beside the run.

One process, which the launcher starts, logs the cells one after the other. Whatever happens to it,
the run goes on: what could not be logged is told at the end.
"""

import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from queue import Queue
from threading import Thread
from time import perf_counter
from typing import Any

import click

from mixbench.declare import BASELINE
from mixbench.errors import MixbenchError, UnknownName, UsageError, one_line
from mixbench.records.schema import Record, parse
from mixbench.storage.curves import read_curve
from mixbench.storage.files import write_bytes
from mixbench.storage.store import Store

PACKAGES: Mapping[str, str] = {"tensorboard": "tensorboard", "wandb": "wandb"}
FOLDER = "tracked"  # in the store
LAST = "logged"  # file that is written last, so that no cell is logged twice
PATIENCE_S = 120.0  # for one cell, when the run has ended
PROJECT = "mixbench"


def check(kinds: Iterable[str]) -> None:
    """Check that the packages of trackers are installed.

    Raises
    ------
    UnknownName
        If there is no such tracker.
    UsageError
        If one is not installed.
    """
    for kind in kinds:
        if kind not in LOG:
            raise UnknownName("tracker", kind, LOG)
        if (package := PACKAGES.get(kind)) and find_spec(package) is None:
            raise UsageError(f"--log {kind} needs {package}: pip install 'mixbench[{kind}]'.")


class Tracking:
    """The process that logs finished cells.

    Parameters
    ----------
    store
        Store with the records.
    kinds
        Names of the trackers; no process is started if there is none.
    """

    def __init__(self, store: Store, kinds: Sequence[str]) -> None:
        self._kinds, self._store = kinds, store
        self._records: Queue[Path | None] = Queue()
        self._process: subprocess.Popen[str] | None = None
        self._trouble = ""
        self.told = store.root / FOLDER / "log.txt"

    def add(self, record: Path) -> None:
        """Log the cell of a record when the earlier ones are logged; return at once."""
        if not self._kinds or self._trouble:
            return
        if self._process is None:
            try:
                self._process = self._started()
            except OSError as error:
                self._trouble = f"--log: nothing is logged: {one_line(str(error))}"
                return
            Thread(target=self._write, args=(self._process,), daemon=True).start()
        self._records.put(record)

    def _started(self) -> "subprocess.Popen[str]":
        self.told.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-P", "-m", __name__, str(self._store.root), *self._kinds]
        with self.told.open("w", encoding="utf-8") as log:
            return subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, text=True
            )

    def _write(self, process: "subprocess.Popen[str]") -> None:
        """Hand the records over, each when the process reads the next."""
        with suppress(OSError):  # the process has ended, which `close` tells
            stream = process.stdin
            assert stream is not None
            while record := self._records.get():
                stream.write(json.dumps(str(record)) + "\n")
                stream.flush()
            stream.close()

    def close(self) -> list[str]:
        """Wait until all cells are logged; return lines that tell where, and what went wrong.

        The process is killed when it has logged nothing for a while.
        """
        process = self._process
        if process is None:
            return [self._trouble] if self._trouble else []
        self._records.put(None)
        lines = [f"logged in {self.told.parent}"]
        seen, since = 0, perf_counter()
        while process.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.5)
            if (size := self.told.stat().st_size) != seen:
                seen, since = size, perf_counter()
            if perf_counter() - since > PATIENCE_S:
                process.kill()
                process.wait()
                return [
                    *lines, f"--log: nothing was logged for {PATIENCE_S:.0f} s; see {self.told}"
                ]  # fmt: skip
        if process.returncode:
            lines.append(f"--log: some cells could not be logged; see {self.told}")
        return lines


@dataclass(frozen=True)
class Finished:
    """What is logged of a finished cell.

    Attributes
    ----------
    record
        The record.
    curve
        Learning curve, one row for each epoch.
    mixes
        PNG file with training images, and what the method mixes from them; None if there is none.
    path
        Path of the record.
    """

    record: Record
    curve: Sequence[Mapping[str, float]]
    mixes: bytes | None
    path: Path

    @property
    def config(self) -> dict[str, Any]:
        """The parameters of the method, the task and the recipe, and what else was asked for."""
        record = self.record
        units = {"method": record.method, "task": record.task, "base_task": record.base_task}
        found: dict[str, Any] = {
            **{role: unit.name for role, unit in units.items() if unit},
            "model": record.model,
            "protocol": record.protocol,
            "seed": record.seed,
            "data": record.data.name,
            "origin": record.data.origin,
            "record": str(self.path),
        }
        for role, unit in units.items():
            found |= {f"{role}.{name}": v for name, v in (unit.parameters if unit else {}).items()}
        return found | {f"recipe.{name}": value for name, value in record.recipe.items()}

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics on the test split after the last epoch, and the cost."""
        found = {f"test/{m.name}": m.value for m in self.record.metrics if m.at == "last"}
        seconds = sum(stage.wall_s or 0.0 for stage in self.record.stages if stage.own)
        return {**found, "minutes": seconds / 60}


def finished(store: Store, record: Record, path: Path) -> Finished:
    """Return what is logged of the cell of a record."""
    from mixbench.figures.mixes import example_mixes

    artifact = next((a for a in record.artifacts if a.role == "curve"), None)
    curve = read_curve(store.root / artifact.path) if artifact else []
    trained = next((stage.key for stage in record.stages if stage.kind == "train"), None)
    mixes = None
    if trained and record.method.name != BASELINE:
        try:
            mixes = _png(example_mixes(store, trained))
        except Exception as error:  # noqa: BLE001  # no picture is no reason not to log
            click.echo(f"{record.cell}: no picture of mixed images: {one_line(str(error))}")
    return Finished(record, curve, mixes, path)


def _png(figure: Any) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return file.getvalue()


def log_csv(cell: Finished, folder: Path) -> None:
    """Write the curve, the metrics and the parameters of a cell as CSV files."""
    import pandas as pd

    pd.DataFrame([*cell.curve]).to_csv(folder / "curve.csv", index=False)
    for name, values in (("metrics", cell.metrics), ("config", cell.config)):
        rows = [(one, str(value)) for one, value in values.items()]
        pd.DataFrame(rows, columns=["name", "value"]).to_csv(folder / f"{name}.csv", index=False)
    if cell.mixes:
        write_bytes(folder / "mixes.png", cell.mixes)


def log_tensorboard(cell: Finished, folder: Path) -> None:
    """Write the events of a cell for TensorBoard."""
    from torch.utils.tensorboard.writer import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        for row in cell.curve:
            for name in row.keys() - {"epoch"}:
                writer.add_scalar(name, row[name], int(row["epoch"]))
        last = int(cell.curve[-1]["epoch"]) if cell.curve else 0
        for name, value in cell.metrics.items():
            writer.add_scalar(name, value, last)
        if cell.mixes:
            writer.add_image("mixes", _pixels(cell.mixes), last, dataformats="HWC")
        text = "\n".join(f"    {name}: {value}" for name, value in cell.config.items())
        writer.add_text("config", text)


def log_wandb(cell: Finished, folder: Path) -> None:
    """Log a cell as a run of Weights & Biases."""
    import wandb

    record = cell.record
    with wandb.init(
        project=PROJECT,
        name=record.cell,
        group=f"{record.task.name}/{record.method.name}",
        config=cell.config,
        dir=folder,
        id=record.cell.rpartition("/")[2],
        resume="allow",
    ) as run:
        for row in cell.curve:
            run.log({**row}, step=int(row["epoch"]))
        if cell.mixes:
            run.log({"mixes": wandb.Image(_pixels(cell.mixes))})
        run.summary.update(cell.metrics)


def _pixels(png: bytes) -> Any:
    """Return the pixels of a picture, (H, W, 3) uint8."""
    import numpy as np
    from PIL import Image

    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("RGB"))


LOG: Mapping[str, Callable[[Finished, Path], None]] = {
    "csv": log_csv,
    "tensorboard": log_tensorboard,
    "wandb": log_wandb,
}


def main(root: str, *kinds: str) -> int:
    """Log the cells whose records are named on the lines of stdin; return 1 if one failed."""
    store, failed = Store(Path(root)), 0
    for line in sys.stdin:
        path = Path(json.loads(line))
        try:
            failed |= _log(store, path, kinds)
        except (MixbenchError, OSError) as error:
            click.echo(f"{path}: {one_line(str(error))}")
            failed = 1
    return failed


def _log(store: Store, path: Path, kinds: Sequence[str]) -> int:
    """Log a cell that has a result with every tracker that has not logged it yet."""
    record, failed = parse(path.read_text(encoding="utf-8"), str(path)), 0
    folders = {kind: store.root / FOLDER / kind / record.cell for kind in kinds}
    left = {kind: folder for kind, folder in folders.items() if not (folder / LAST).exists()}
    if record.status != "ok" or not left:
        return 0
    cell = finished(store, record, path)
    for kind, folder in left.items():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            LOG[kind](cell, folder)
            (folder / LAST).touch()
            click.echo(f"{kind}: {record.cell}: logged")
        except Exception as error:  # noqa: BLE001  # a tracker may raise anything
            click.echo(f"{kind}: {record.cell}: {type(error).__name__}: {one_line(str(error))}")
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
