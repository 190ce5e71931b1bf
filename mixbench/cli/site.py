"""``mixbench site``: build a static website of the leaderboards."""

from pathlib import Path

import click

from mixbench.cli.leaderboard import chosen_suites


@click.group()
def site() -> None:
    """Build a static website of the leaderboards."""


@site.command()
@click.argument("names", nargs=-1)
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), default="site", show_default=True,
    help="Output folder.",
)  # fmt: skip
def build(names: tuple[str, ...], *, out: Path) -> None:
    """Write the pages of the named suites (default: all).

    Open index.html in a browser; no web server is needed.
    """
    from mixbench.site.pages import Site

    number = sum(1 for _ in Site(chosen_suites(names)).build(out))
    click.echo(f"{number} files written; open {out / 'index.html'}")
