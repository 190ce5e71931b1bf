"""``mixbench status``: show the progress of the current runs."""

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from mixbench.cli.current_runs import StageRow, State, current_runs, stage_rows
from mixbench.cli.options import as_json, existing_store, store_option
from mixbench.cli.stage_table import stage_table
from mixbench.cli.widths import wrapped

if TYPE_CHECKING:
    from mixbench.storage.notes import RunNote
    from mixbench.storage.store import Store


TOLD = {"finished", "waiting"}  # states that their number says enough about


@click.command()
@click.option("--stages", is_flag=True, help="Show each stage instead of counts.")
@as_json
@store_option
def status(*, stages: bool, as_json: bool, store_path: Path) -> None:
    """Show the progress of all runs that are going on, and of the newest; works from any shell."""
    store = existing_store(store_path)
    runs = [
        (run, [row for cell in run.cells for row in stage_rows(store, cell)])
        for run in current_runs(store)
    ]
    if of_slurm := [row for run, rows in runs if run.engine == "slurm" for row in rows]:
        _add_queue(store, of_slurm)
    if as_json:
        told = [{**asdict(run), "cells": [asdict(row) for row in rows]} for run, rows in runs]
        click.echo(json.dumps({"runs": told}, indent=1))
        return
    for number, (run, rows) in enumerate(runs):
        click.echo("\n" * (number > 0), nl=False)
        _tell(run, rows, stages=stages)


def _tell(run: "RunNote", rows: list[StageRow], *, stages: bool) -> None:
    """Print a run's command, the numbers of stages in each state, and the stages at work."""
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

    found = places(store)
    for row in rows:
        if row.key in found and row.state in {"running", "stopped", "waiting"}:
            if row.state != "running":
                row.state = "queued"
            row.detail = ", ".join(filter(None, (found[row.key], row.detail)))
