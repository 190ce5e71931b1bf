"""``mixbench preview``: draw how methods mix the same images."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mixbench.cli.completion import completed
from mixbench.cli.completion import methods as every_method
from mixbench.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mixbench.contract import Task
    from mixbench.registry.cards import MethodCard
    from mixbench.registry.parameters import Setting

DPI = 150


@click.command()
@click.argument("methods", nargs=-1, required=True, shell_complete=completed(every_method))
@click.option("-t", "--task", help="Task to take images from; generated if its data is missing.")
@click.option("--data", metavar="PATH", help="Data folder of the task.")
@click.option(
    "--images", type=click.Path(path_type=Path, file_okay=False, exists=True), metavar="DIR",
    help="Folder of images to mix.  [default: three photographs, unless --task is given]",
)  # fmt: skip
@click.option(
    "--across", type=click.IntRange(1), metavar="N",
    help="Draw one column for each method, with N images.",
)  # fmt: skip
@click.option(
    "--set", "settings", multiple=True, metavar="METHOD.PARAM=VALUE",
    help="Set a parameter of a method.",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, help="Seed of image choice and mixing.")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), default="preview.png",
    show_default=True, help="Output file: png, pdf or svg.",
)  # fmt: skip
def preview(  # noqa: PLR0913  # one for each option
    methods: tuple[str, ...],
    *,
    task: str | None,
    data: str | None,
    images: Path | None,
    across: int | None,
    settings: tuple[str, ...],
    seed: int,
    out: Path,
) -> None:
    """Draw how methods mix the same images, with the weight of each label.

    The weights are those of the mix. A method with a loss of its own may change them; which methods
    have one is said below the picture. A terminal with color support also displays the images.
    """  # noqa: DOC501  # commands report errors to the user
    import tempfile
    from functools import partial

    from rich.console import Console

    from mixbench.cli.options import names
    from mixbench.figures.pictures import bundled, pictures_in
    from mixbench.figures.preview import drawn, drawn_across
    from mixbench.figures.preview import preview as rows_of
    from mixbench.figures.terminal import in_text
    from mixbench.registry.units import find

    if images is not None and (task or data):
        raise UsageError(
            "--images cannot be combined with --task or --data: leave out --task and --data, or "
            "leave out --images."
        )
    cards = [find("method", name) for name in names(methods)]
    mixed = partial(rows_of, cards, seed=seed, settings=_settings(settings, cards))
    with tempfile.TemporaryDirectory() as scratch:
        if task is None:
            shown = pictures_in(images) if images else bundled()
            rows = mixed(shown, Path(), "")
        else:
            rows = mixed(*_images(task, data, Path(scratch)))
    figure = drawn_across(rows, across) if across else drawn(rows)
    figure.savefig(out, dpi=DPI)
    console = Console()
    if console.color_system:
        console.print(in_text(rows, console.width))
    click.echo(out)
    if own := [card.name for card in cards if "loss" in card.defines]:
        click.echo(f"Their own loss may change the weights of labels: {', '.join(own)}")


def _settings(texts: "Sequence[str]", cards: "Sequence[MethodCard]") -> "list[Setting]":
    """Return the settings, each of which must be of one of the methods."""
    from mixbench.registry.parameters import read_settings

    found, known = read_settings(texts), [card.name for card in cards]
    if strange := [setting.unit for setting in found if setting.unit not in known]:
        raise UsageError(
            f"--set must name a method of this picture: {', '.join(known)} (got {strange[0]})."
        )
    return found


def _images(named: str, data: str | None, scratch: Path) -> "tuple[Task, Path, str]":
    """Return a task, its data folder (given, installed, bundled or generated), and a model."""
    from dataclasses import replace

    from mixbench.contract.loading import make_task
    from mixbench.datasets.locate import SYNTHETIC, locate
    from mixbench.plan.request import base_values, layout_values, own_or_named

    protocol, (card, data) = "quick", own_or_named(named, data)
    if protocol not in card.declared.protocols or card.declared.evaluates:
        raise UsageError(f"The task {card.name} has no training images; choose another --task.")
    values = base_values(card, protocol) | layout_values(card, data)
    shown = make_task(card, values)
    place = locate(card, data, protocol, values)
    if place.origin != SYNTHETIC and place.folder is not None:
        return shown, place.folder, card.declared.protocols[protocol].model
    few = replace(shown.synthetic, train=20, test=1)  # enough to hold out one image per class
    shown.synthesize(scratch, few)
    return shown, scratch, card.declared.protocols[protocol].model
