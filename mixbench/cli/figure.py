"""``mixbench figure``: reproduce the figures of the PatchMix paper."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mixbench.cli.options import names, store_option
from mixbench.cli.skipped import skip

if TYPE_CHECKING:
    from mixbench.records.schema import Record

NAMES = ("mixes", "cycle", "mutations", "boundaries", "boxes", "evolution", "pairs")


@click.command()
@click.argument("name", type=click.Choice(NAMES))
@click.option("-m", "--method", "methods", multiple=True, help="Methods to show; default: all.")
@click.option("-t", "--task", "tasks", multiple=True, help="Use only runs on these tasks.")
@click.option("--seed", type=click.IntRange(0), default=0, help="Seed of the figure.")
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), default=".", metavar="DIR",
    help="Folder for NAME.png and NAME.pdf.  [default: current folder]",
)  # fmt: skip
@store_option
def figure(
    name: str,
    *,
    methods: tuple[str, ...],
    tasks: tuple[str, ...],
    seed: int,
    out: Path,
    store_path: Path,
) -> None:
    """Draw a figure of the PatchMix paper from measured results, as PNG and PDF.

    \b
    mixes       1     the same photographs, mixed by each method
    cycle       3     one cycle of the search, run on three classes
    mutations   4     the effect of the search's mutations on masks
    boundaries  5     decision boundaries between points in the plane
    boxes       6     localization maps and boxes of birds
    evolution   7, 8  fitness per generation, and class pairs that appeared or disappeared
    pairs       9     class pairs found by the search, with their masks

    All figures except mixes and boundaries need finished runs in the store.
    """  # noqa: D301  # click's marker: do not rewrap these lines
    from mixbench.cli.report import recorded
    from mixbench.figures.patchmix.named import FIGURES, Subjects
    from mixbench.figures.style import save
    from mixbench.leaderboard.store_report import read_records
    from mixbench.registry.units import find, paths
    from mixbench.storage.store import Store

    store, chosen = Store(store_path), names(methods)
    records: list[Record] = []
    if name not in {"mixes", "boundaries"}:
        found = read_records(store, skip=skip) if store_path.is_dir() else []
        records = recorded([r for r in found if r.status == "ok"], chosen, names(tasks))
    cards = [find("method", unit) for unit in chosen or paths("method")]
    if name == "boundaries" and not chosen:
        plain = [card for card in cards if card.declared.sites == ("input",)]
        cards = [card for card in plain if not card.declared.needs_attention]
    drawn = FIGURES[name](Subjects(cards, store, records, seed))
    out.mkdir(parents=True, exist_ok=True)
    for path in save(drawn, out / name):
        click.echo(path)
