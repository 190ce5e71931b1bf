"""``mixbench logs``: print the log of a cell."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mixbench.cli.current_runs import chosen_cells, current_runs, stage_rows
from mixbench.cli.options import existing_store, store_option

if TYPE_CHECKING:
    from mixbench.storage.notes import CellNote, StageNote
    from mixbench.storage.store import Store

FOLLOW_S = 0.5


@click.command()
@click.argument("cell")
@click.option("-f", "--follow", is_flag=True, help="Print new output until the cell ends.")
@store_option
def logs(cell: str, *, follow: bool, store_path: Path) -> None:
    """Print the output of a cell's processes; part of the cell's name is enough."""
    store = existing_store(store_path)
    entries = chosen_cells(current_runs(store), [cell])
    read: dict[str, int] = {}
    while True:
        ended = all(_has_ended(store, entry) for entry in entries)
        for entry in entries:
            for stage in entry.stages:
                _print_new(store, entry.cell, stage, read)
        if ended or not follow:
            return
        time.sleep(FOLLOW_S)


def _print_new(store: "Store", cell: str, stage: "StageNote", read: dict[str, int]) -> None:
    """Print the part of a stage's log that was not printed before."""
    path = store.log(stage.key)
    if not path.exists():
        return
    start = read.get(stage.key)
    with path.open("rb") as file:
        file.seek(start or 0)
        text = file.read()
    if start is None:
        click.echo(f"--- {cell} {stage.kind}: {path}")
    read[stage.key] = (start or 0) + len(text)
    click.echo(text.decode(errors="replace"), nl=False)


def _has_ended(store: "Store", entry: "CellNote") -> bool:
    """Return whether a cell is finished or failed, so that no stage runs any more."""
    states = [row.state for row in stage_rows(store, entry)]
    return states[-1] == "finished" or bool({"failed", "diverged"} & set(states))
