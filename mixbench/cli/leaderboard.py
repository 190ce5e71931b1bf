"""``mixbench leaderboard``: build the leaderboard tables of suites from their records."""

from pathlib import Path

import click

from mixbench.errors import UsageError

REFUSED = 4


@click.group()
def leaderboard() -> None:
    """Build the leaderboards of suites from their records."""


@leaderboard.command()
@click.argument("names", nargs=-1)
@click.option("--check", is_flag=True, help="Only check whether all files are up to date.")
def build(names: tuple[str, ...], *, check: bool) -> int:
    """Write the tables of the named suites (default: all), using only their records."""
    from mixbench.leaderboard import build as builder

    folders = chosen_suites(names)
    if not check:
        for folder in folders:
            for path in builder.build(folder):
                click.echo(path)
        return 0
    late = [path for folder in folders for path in builder.stale(folder)]
    for path in late:
        click.echo(f"{path} is out of date: run `mixbench leaderboard build`.", err=True)
    if not late:
        click.echo(f"{len(folders)} leaderboards are up to date.")
    return REFUSED if late else 0


def chosen_suites(names: tuple[str, ...]) -> list[Path]:
    """Return the folders of the named suites, or of all suites if none is named.

    Raises
    ------
    UsageError
        If no suite is named and the checkout contains none.
    """
    from mixbench.leaderboard.suite import FOLDER, folder_of, suites

    folders = [folder_of(name, here=True) for name in names] or [*suites(here=True).values()]
    if not folders:
        raise UsageError(f"No suites in {FOLDER}/: run the command in a checkout of mixbench.")
    return folders
