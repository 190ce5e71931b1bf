"""``mixbench cancel``: cancel cells of the newest run."""

from pathlib import Path

import click

from mixbench.cli.newest_run import chosen_cells, newest_run
from mixbench.cli.options import existing_store, store_option
from mixbench.errors import UsageError


@click.command()
@click.argument("cells", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Cancel every cell of the newest run.")
@store_option
def cancel(cells: tuple[str, ...], *, everything: bool, store_path: Path) -> None:
    """Cancel cells of the newest run; works from any shell.

    Name a cell, or one or more components of its name between slashes. Running stages write a
    checkpoint before they stop. Stages that other cells need continue.
    """  # noqa: DOC501  # commands report errors to the user
    store = existing_store(store_path)
    if bool(cells) == everything:
        raise UsageError("Name the cells to cancel, or give --all, not both.")
    run = newest_run(store)
    chosen = run.cells if everything else chosen_cells(run, cells)
    names = dict.fromkeys(note.cell for note in chosen)
    kept = {s.key for note in run.cells if note.cell not in names for s in note.stages}
    keys = dict.fromkeys(stage.key for note in chosen for stage in note.stages)
    ended = [key for key in keys if key not in kept and not store.finished(key)]
    for key in ended:
        store.cancel(key)
    if run.engine == "slurm":  # its jobs run without a launcher
        from mixbench.engines.slurm_queue import cancel_jobs

        cancel_jobs(store, ended)
    told = "all cells of the newest run" if everything else ", ".join(names)
    click.echo(f"Cancelled {len(ended)} stages of {told}.")
