"""``mixbench status``, ``logs`` and ``cancel``: a run, from any shell."""

import json
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mixbench.cli.options import as_json, existing_store, store_option
from mixbench.errors import UnknownName, UsageError

if TYPE_CHECKING:
    from mixbench.store import Store

FOLLOW_S = 0.5


@click.command()
@as_json
@store_option
def status(*, as_json: bool, store_path: Path) -> None:
    """Show how far the newest run is, from any shell."""
    store = existing_store(store_path)
    run = _newest_run(store)
    rows = [row for cell in run["cells"] for row in _rows(store, cell)]
    if run["engine"] == "slurm":
        rows = _in_the_queue(store, rows)
    if as_json:
        click.echo(json.dumps({**run, "cells": rows}, indent=1))
        return
    click.echo(f"{run['created']}  {' '.join(run['command'])}")
    for row in rows:
        detail = f"  {row['detail']}" if row["detail"] else ""
        click.echo(f"{row['state']:9} {row['kind']:8} {row['cell']}{detail}")
    counts = {state: sum(row["state"] == state for row in rows) for state in STATES}
    click.echo(", ".join(f"{name} {number}" for name, number in counts.items() if number))


STATES = ("finished", "running", "queued", "failed", "diverged", "skipped", "stopped", "waiting")


def _rows(store: "Store", cell: dict[str, Any]) -> Iterator[dict[str, str]]:
    """Yield a cell's stages with their states; what rests on a failed one is skipped."""
    broken = ""
    for stage in cell["stages"]:
        state = _state(store, stage["key"])
        if state["state"] in {"failed", "diverged"}:
            broken = stage["kind"]
        elif state["state"] == "waiting" and broken:
            state = {"state": "skipped", "detail": f"rests on {broken}"}
        yield {"cell": cell["cell"], **stage, **state}


def _in_the_queue(store: "Store", rows: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """Return rows with what SLURM says of their jobs, which a launcher is not needed for."""
    from mixbench.engines.slurm_queue import places

    there = places(store, {row["key"] for row in rows})
    for row in rows:
        if row["key"] in there and row["state"] in {"running", "stopped", "waiting"}:
            if row["state"] != "running":
                row["state"] = "queued"
            row["detail"] = ", ".join(filter(None, (there[row["key"]], row["detail"])))
    return [*rows]


@click.command()
@click.argument("cell")
@click.option("-f", "--follow", is_flag=True, help="Go on as it prints more, until it has ended.")
@store_option
def logs(cell: str, *, follow: bool, store_path: Path) -> None:
    """Print what a cell's processes printed; part of the cell's name is enough."""
    store = existing_store(store_path)
    read: dict[str, int] = {}
    while True:
        entries = _chosen(_newest_run(store), [cell])
        ended = all(_has_ended(store, entry) for entry in entries)
        for entry in entries:
            for stage in entry["stages"]:
                _print_new(store, entry["cell"], stage, read)
        if ended or not follow:
            return
        time.sleep(FOLLOW_S)


def _print_new(store: "Store", cell: str, stage: dict[str, str], read: dict[str, int]) -> None:
    """Print what a stage's log has beyond what was read of it."""
    path = store.log(stage["key"])
    if not path.exists():
        return
    start = read.get(stage["key"])
    with path.open("rb") as file:
        file.seek(start or 0)
        text = file.read()
    if start is None:
        click.echo(f"--- {cell} {stage['kind']}: {path}")
    read[stage["key"]] = (start or 0) + len(text)
    click.echo(text.decode(errors="replace"), nl=False)


def _has_ended(store: "Store", entry: dict[str, Any]) -> bool:
    """Tell whether nothing of a cell runs or will."""
    states = [row["state"] for row in _rows(store, entry)]
    return states[-1] == "finished" or bool({"failed", "diverged"} & set(states))


@click.command()
@click.argument("cells", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every cell of the newest run.")
@store_option
def cancel(cells: tuple[str, ...], *, everything: bool, store_path: Path) -> None:
    """End cells of the newest run, from any shell; parts between the slashes are enough.

    What runs leaves a checkpoint. Stages that other cells need go on.
    """  # noqa: DOC501  # commands tell their users
    store = existing_store(store_path)
    if bool(cells) == everything:
        raise UsageError("Name the cells to cancel, or give --all.")
    run = _newest_run(store)
    chosen = run["cells"] if everything else _chosen(run, cells)
    kept = {s["key"] for entry in run["cells"] if entry not in chosen for s in entry["stages"]}
    keys = {s["key"]: s["kind"] for entry in chosen for s in entry["stages"]}
    ended = [key for key in keys if key not in kept and not store.finished(key)]
    for key in ended:
        store.cancel(key)
    if run["engine"] == "slurm":  # whose jobs may run without a launcher
        from mixbench.engines.slurm_queue import cancel_jobs

        cancel_jobs(store, ended)
    names = ", ".join(entry["cell"] for entry in chosen)
    click.echo(f"Cancelled {len(ended)} stages of {names}.")


def _chosen(run: dict[str, Any], parts: Sequence[str]) -> list[dict[str, Any]]:
    """Return the run's cells that are meant by whole parts of their names."""
    known = [entry["cell"] for entry in run["cells"]]
    for part in parts:
        if not any(_names(part, cell) for cell in known):
            raise UnknownName("cell of the newest run", part, known)
    return [e for e in run["cells"] if any(_names(part, e["cell"]) for part in parts)]


def _names(part: str, cell: str) -> bool:
    """Tell whether some whole parts of a cell's name, with or without parameters, are meant."""
    plain = re.sub(r"\[[^]]*\]", "", cell)
    return any(f"/{part}/" in f"/{name}/" for name in (cell, plain))


def _newest_run(store: "Store") -> dict[str, Any]:
    from mixbench.store import read_json

    runs = sorted(store.runs.glob("*.json"))
    if not runs:
        raise UsageError(f"No run is noted in {store.root}; start one with `mixbench run`.")
    run: dict[str, Any] = read_json(runs[-1])
    return run


def _state(store: "Store", key: str) -> dict[str, str]:
    """Return a stage's state and what else there is to say, as the disk has it."""
    if store.finished(key):
        return {"state": "finished", "detail": ""}
    failure, line = store.failure(key), store.progress(key)
    where = f"step {line['step']} of {line['of']}" if line else ""
    if failure:
        return {"state": failure["status"], "detail": failure["reason"]}
    if store.running(key):
        return {"state": "running", "detail": where}
    return {"state": "stopped" if line else "waiting", "detail": where}
