"""``mixbench submit``: copy the store's records of a suite into the suite's folder."""

import math
from pathlib import Path

import click

from mixbench.cli.leaderboard import REFUSED
from mixbench.cli.options import existing_store, store_option


@click.command()
@click.argument("name")
@click.option("--predictions", is_flag=True, help="Also copy all predictions of the models.")
@click.option(
    "--predictions-of", "number", type=click.IntRange(0), metavar="N",
    help="Copy all predictions of the first N seeds only, and compact ones of the others.",
)  # fmt: skip
@store_option
def submit(name: str, *, predictions: bool, number: int | None, store_path: Path) -> int:
    """Copy the store's records of a suite, with learning curves and figures, to its folder.

    The folder is then ready for a pull request.
    """
    from mixbench.figures.cells import draw_cells
    from mixbench.leaderboard import submission, verification
    from mixbench.leaderboard.evidence import FIGURE, FIGURES
    from mixbench.leaderboard.suite import folder_of

    folder = folder_of(name, here=True)
    store = existing_store(store_path)
    copied = math.inf if predictions and number is None else number or 0
    found = submission.submit(folder, store, predictions=copied)
    drawn = draw_cells(store, found.records, folder / FIGURES, [FIGURE])
    for path in (*found.written, *drawn):
        click.echo(path)
    if found.missing:
        click.echo(f"{len(found.missing)} cells have no record yet: {found.missing[0]}, ...")
    checked = verification.verify(folder)
    for note in checked.notes:
        click.echo(f"note: {note}")
    for finding in checked.findings:
        click.echo(str(finding), err=True)
    click.echo(
        f"{len(found.written)} new files. Next: `mixbench verify {name}`, `mixbench "
        f"leaderboard build {name}`, commit {folder}/, and open a pull request."
    )
    return REFUSED if checked.findings else 0
