"""``mixbench status``: show the progress of the newest run."""

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from mixbench.cli.newest_run import StageRow, State, newest_run, stage_rows
from mixbench.cli.options import as_json, existing_store, store_option
from mixbench.cli.stage_table import stage_table
from mixbench.cli.widths import wrapped

if TYPE_CHECKING:
    from mixbench.storage.store import Store


TOLD = {"finished", "waiting"}  # states that their number says enough about


@click.command()
@click.option("--stages", is_flag=True, help="Show each stage instead of counts.")
@as_json
@store_option
def status(*, stages: bool, as_json: bool, store_path: Path) -> None:
    """Show the progress of the newest run; works from any shell."""
    store = existing_store(store_path)
    run = newest_run(store)
    rows = [row for cell in run.cells for row in stage_rows(store, cell)]
    if run.engine == "slurm":
        _add_queue(store, rows)
    if as_json:
        click.echo(json.dumps({**asdict(run), "cells": [asdict(row) for row in rows]}, indent=1))
        return
    click.echo(wrapped(" ".join(run.command), 2, f"{run.created}  "))
    if not stages:
        counted = ((row.cell, row.state) for row in rows)
        click.echo(f"\n{stage_table(counted, get_args(State))}\n")
    once = {row.key: row for row in rows if row.state not in TOLD}  # cells share stages
    for row in rows if stages else once.values():
        detail = f"  {row.detail}" if row.detail else ""
        click.echo(f"{row.state:9} {row.kind:8} {row.cell}{detail}")
    counts = Counter(row.state for row in rows)
    click.echo(", ".join(f"{name} {counts[name]}" for name in get_args(State) if counts[name]))


def _add_queue(store: "Store", rows: list[StageRow]) -> None:
    """Add the queue states of the stages' SLURM jobs; works without a running launcher."""
    from mixbench.engines.slurm_queue import places

    found = places(store, {row.key for row in rows})
    for row in rows:
        if row.key in found and row.state in {"running", "stopped", "waiting"}:
            if row.state != "running":
                row.state = "queued"
            row.detail = ", ".join(filter(None, (found[row.key], row.detail)))
