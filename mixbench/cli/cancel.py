"""``mixbench cancel``: cancel cells of the current runs."""

from pathlib import Path

import click

from mixbench.cli.current_runs import chosen_cells, current_runs
from mixbench.cli.options import existing_store, store_option
from mixbench.cli.plan import counted
from mixbench.errors import UsageError


@click.command()
@click.argument("cells", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Cancel every cell of these runs.")
@store_option
def cancel(cells: tuple[str, ...], *, everything: bool, store_path: Path) -> None:
    """Cancel cells of all runs that are going on, and of the newest; works from any shell.

    Name a cell, or one or more components of its name between slashes. Running stages write a
    checkpoint before they stop. Stages that other cells need continue.
    """  # noqa: DOC501  # commands report errors to the user
    store = existing_store(store_path)
    if bool(cells) == everything:
        raise UsageError("Name the cells to cancel, or give --all, not both.")
    runs = current_runs(store)
    every = [note for run in runs for note in run.cells]
    chosen = every if everything else chosen_cells(runs, cells)
    names = dict.fromkeys(note.cell for note in chosen)
    kept = {s.key for note in every if note.cell not in names for s in note.stages}
    keys = dict.fromkeys(stage.key for note in chosen for stage in note.stages)
    ended = [key for key in keys if key not in kept and not store.finished(key)]
    for key in ended:
        store.cancel(key)
    if any(run.engine == "slurm" for run in runs):  # its jobs run without a launcher
        from mixbench.engines.slurm_queue import cancel_jobs

        cancel_jobs(store, ended)
    told = "all cells" if everything else ", ".join(names)
    click.echo(f"Cancelled {counted('stage', len(ended))} of {told}.")
