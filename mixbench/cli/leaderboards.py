"""``mixbench leaderboard``, ``submit`` and ``verify``: the suites of a checkout."""

from collections import Counter
from pathlib import Path

import click

from mixbench.cli.options import existing_store, store_option
from mixbench.errors import UsageError

REFUSED = 4
FIGURES_DPI = 90  # small enough to be committed


@click.group()
def leaderboard() -> None:
    """Build the leaderboards of suites from their records."""


@leaderboard.command()
@click.argument("names", nargs=-1)
@click.option("--check", is_flag=True, help="Write nothing; fail if a file is out of date.")
def build(names: tuple[str, ...], *, check: bool) -> int:
    """Write the tables of suites, all by default, from their records alone."""
    from mixbench.leaderboard import build as builder

    folders = chosen(names)
    if not check:
        for folder in folders:
            for path in builder.build(folder):
                click.echo(path)
        return 0
    late = [path for folder in folders for path in builder.stale(folder)]
    for path in late:
        click.echo(f"{path} is out of date: run `mixbench leaderboard build`.", err=True)
    if not late:
        click.echo(f"{len(folders)} leaderboards are what their records say.")
    return REFUSED if late else 0


@click.command()
@click.argument("name")
@click.option("--predictions", is_flag=True, help="What the models predicted, too.")
@store_option
def submit(name: str, *, predictions: bool, store_path: Path) -> int:
    """Put the store's records of a suite, with curves and pictures, into its folder.

    The folder is then what a pull request sends.
    """
    from mixbench.figures.cells import draw_cells
    from mixbench.leaderboard import submission, verification
    from mixbench.leaderboard.build import FIGURES
    from mixbench.leaderboard.suites import folder_of

    folder = folder_of(name)
    store = existing_store(store_path)
    found = submission.submit(folder, store, predictions=predictions)
    drawn = draw_cells(store, found.records, folder / FIGURES, dpi=FIGURES_DPI)
    for path in (*found.written, *drawn):
        click.echo(path)
    if found.missing:
        click.echo(f"{len(found.missing)} cells have no record yet: {found.missing[0]}, ...")
    checked = verification.verify(folder)
    for finding in checked.findings:
        click.echo(str(finding), err=True)
    click.echo(
        f"{len(found.written)} files are new. Next: `mixbench verify {name}`, `mixbench "
        f"leaderboard build {name}`, commit {folder}/, and open a pull request."
    )
    return REFUSED if checked.findings else 0


@click.command()
@click.argument("names", nargs=-1)
@click.option("--base", metavar="COMMIT", help="Records that this commit has may not be changed.")
@click.option(
    "--against",
    metavar="STORE",
    type=click.Path(path_type=Path),
    help="A store where cells were run again: records that it confirms were rerun.",
)
@click.option("--check", is_flag=True, help="Do not note in verified.json what was checked.")
def verify(names: tuple[str, ...], *, base: str | None, against: Path | None, check: bool) -> int:
    """Check the records of suites: schema, versions, hashes, numbers, and that none was edited."""
    from mixbench.leaderboard import verification
    from mixbench.leaderboard.reports import read_records

    reruns = [] if against is None else read_records(existing_store(against))
    findings = []
    for folder in chosen(names):
        checked = verification.verify(folder, base=base, reruns=reruns)
        findings += checked.findings
        counts = Counter(checked.tiers.values())
        said = ", ".join(f"{count} {tier}" for tier, count in sorted(counts.items()))
        click.echo(f"{folder.name}: {len(checked.tiers)} records{f' ({said})' if said else ''}")
        if not check and not checked.findings:
            verification.note_tiers(folder, checked.tiers)
    for finding in findings:
        click.echo(f"error: {finding}", err=True)
    return REFUSED if findings else 0


def chosen(names: tuple[str, ...]) -> list[Path]:
    """Return the folders of named suites, or of all.

    Raises
    ------
    UsageError
        If there are none.
    """
    from mixbench.leaderboard.suites import FOLDER, folder_of, suites

    folders = [folder_of(name) for name in names] or [*suites().values()]
    if not folders:
        raise UsageError(f"There are no suites in {FOLDER}/ here: give the command in a checkout.")
    return folders
