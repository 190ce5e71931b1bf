"""``mixbench site``: the leaderboards as pages that open from disk."""

from pathlib import Path

import click

from mixbench.cli.leaderboard import chosen_suites


@click.group()
def site() -> None:
    """Build the leaderboards' site."""


@site.command()
@click.argument("names", nargs=-1)
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), default="site", show_default=True,
    help="The folder to write.",
)  # fmt: skip
def build(names: tuple[str, ...], *, out: Path) -> None:
    """Write the pages of suites, all by default; open index.html in any browser."""
    from mixbench.site.pages import Site

    number = sum(1 for _ in Site(chosen_suites(names)).build(out))
    click.echo(f"{number} files; open {out / 'index.html'}")
