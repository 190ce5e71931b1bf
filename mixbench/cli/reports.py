"""``mixbench report``, ``status`` and ``logs``: what came of it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mixbench.cli.options import as_json, existing_store, names, store_option
from mixbench.errors import UnknownName, UsageError

if TYPE_CHECKING:
    from mixbench.records.schema import Record
    from mixbench.store import Store


@click.command()
@click.option("-m", "--method", "methods", multiple=True, help="Only these methods.")
@click.option("-t", "--task", "tasks", multiple=True, help="Only these tasks.")
@click.option(
    "--format", "form", type=click.Choice(["table", "markdown", "csv", "json"]), default="table"
)
@click.option("--figures", is_flag=True, help="Draw the cells instead, and say where.")
@as_json
@store_option
def report(
    *,
    methods: tuple[str, ...],
    tasks: tuple[str, ...],
    form: str,
    figures: bool,
    as_json: bool,
    store_path: Path,
) -> None:
    """Print the leaderboards of the store, or draw its cells."""
    from mixbench.leaderboard import tables
    from mixbench.leaderboard.board import leaderboards

    store = existing_store(store_path)
    records = _chosen(store, names(methods), names(tasks))
    if figures:
        from mixbench.figures.cells import draw_cells

        for path in draw_cells(store, records):
            click.echo(path)
        return
    boards = leaderboards(records)
    writers = {"markdown": tables.to_markdown, "csv": tables.to_csv, "json": tables.to_json}
    if as_json or form != "table":
        click.echo(writers["json" if as_json else form](boards), nl=False)
        return
    for board in boards:
        tables.to_terminal(board)
    if not boards:
        click.echo(f"No finished cell in {store.root} yet; see: mixbench status.")


def _chosen(store: "Store", methods: list[str], tasks: list[str]) -> "list[Record]":
    """Return the store's records, of the given methods and tasks if there are any."""
    from mixbench.leaderboard.reports import read_records

    records = read_records(store)
    for kind, asked, known in (
        ("recorded method", methods, {r.method.name for r in records}),
        ("recorded task", tasks, {r.task.name for r in records}),
    ):
        for name in asked:
            if name not in known:
                raise UnknownName(kind, name, known)
    return [
        record
        for record in records
        if (not methods or record.method.name in methods)
        and (not tasks or record.task.name in tasks)
    ]


@click.command()
@as_json
@store_option
def status(*, as_json: bool, store_path: Path) -> None:
    """Show how far the newest run is, from any shell."""
    store = existing_store(store_path)
    run = _newest_run(store)
    rows = [row for cell in run["cells"] for row in _rows(store, cell)]
    if as_json:
        click.echo(json.dumps({**run, "cells": rows}, indent=1))
        return
    click.echo(f"{run['created']}  {' '.join(run['command'])}")
    for row in rows:
        detail = f"  {row['detail']}" if row["detail"] else ""
        click.echo(f"{row['state']:9} {row['kind']:8} {row['cell']}{detail}")
    counts = {state: sum(row["state"] == state for row in rows) for state in STATES}
    click.echo(", ".join(f"{name} {number}" for name, number in counts.items() if number))


STATES = ("finished", "running", "failed", "diverged", "skipped", "stopped", "waiting")


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


@click.command()
@click.argument("cell")
@store_option
def logs(cell: str, store_path: Path) -> None:
    """Print what a cell's processes printed; part of the cell's name is enough."""
    store = existing_store(store_path)
    run = _newest_run(store)
    found = [entry for entry in run["cells"] if _names(cell, entry["cell"])]
    if not found:
        raise UnknownName("cell of the newest run", cell, [e["cell"] for e in run["cells"]])
    for entry in found:
        for stage in entry["stages"]:
            path = store.log(stage["key"])
            if path.exists():
                click.echo(f"--- {entry['cell']} {stage['kind']}: {path}")
                click.echo(path.read_text(encoding="utf-8", errors="replace"), nl=False)


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
