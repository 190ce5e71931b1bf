"""``mixbench report``: what came of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mixbench.cli.options import as_json, existing_store, names, store_option
from mixbench.errors import UnknownName

if TYPE_CHECKING:
    from mixbench.records.schema import Record


@click.command()
@click.option("-m", "--method", "methods", multiple=True, help="Only these methods.")
@click.option("-t", "--task", "tasks", multiple=True, help="Only these tasks.")
@click.option(
    "--format",
    "form",
    default="table",
    type=click.Choice(["table", "markdown", "latex", "csv", "json"]),
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
    from mixbench.leaderboard.reports import read_records

    store = existing_store(store_path)
    records = recorded(read_records(store), names(methods), names(tasks))
    if figures:
        from mixbench.figures.cells import draw_cells

        for path in draw_cells(store, records):
            click.echo(path)
        return
    boards = leaderboards(records)
    writers = {
        "markdown": tables.to_markdown,
        "latex": tables.to_latex,
        "csv": tables.to_csv,
        "json": tables.to_json,
    }
    if as_json or form != "table":
        click.echo(writers["json" if as_json else form](boards), nl=False)
        return
    for board in boards:
        tables.to_terminal(board)
    if not boards:
        click.echo(f"No finished cell in {store.root} yet; see: mixbench status.")


def recorded(
    records: "list[Record]", methods: Sequence[str], tasks: Sequence[str]
) -> "list[Record]":
    """Return the records of the given methods and tasks, if there are any.

    Raises
    ------
    UnknownName
        If there is no record of one of them.
    """
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
