"""``mixbench check``, ``preview`` and ``new``: for whoever writes a method."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mixbench.cli.options import as_json
from mixbench.errors import UsageError

if TYPE_CHECKING:
    from mixbench.contract import Task
    from mixbench.registry.cards import Card

REFUSED = 3


@click.command()
@click.argument("method")
@as_json
def check(method: str, *, as_json: bool) -> int:
    """Check whether a method, by its name or its file, keeps the contract."""
    from mixbench.registry.units import find, load_method
    from mixbench.testing import METHOD_CHECKS, run_checks, subject_of

    card = find("method", method)
    load_method(card)
    results = []
    width = max(len(one.__name__) for one in METHOD_CHECKS)
    for result in run_checks(subject_of(card)):
        results.append(result)
        if as_json:
            continue
        click.echo(f"{result.status:6}  {result.check:{width}}  {result.said}")
        if result.remedy:
            click.echo(f"{'':8}{card.path}:{result.line}: {result.remedy}")
    failed = sum(result.status == "FAILED" for result in results)
    if as_json:
        click.echo(json.dumps([result._asdict() for result in results], indent=1))
    else:
        exempt = sum(result.status == "exempt" for result in results)
        kept = len(results) - failed - exempt
        said = f"{len(results)} of {len(METHOD_CHECKS)} checks ran: {kept} ok"
        click.echo(f"{said}, {exempt} exempt, {failed} failed")
    return REFUSED if failed else 0


@click.command()
@click.argument("methods", nargs=-1, required=True)
@click.option("-t", "--task", required=True, help="Whose images.")
@click.option("--data", metavar="PATH", help="Their folder; by default, some are generated.")
@click.option("--seed", type=click.IntRange(0), default=0, help="Of the images and the mixing.")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), default="preview.png",
    show_default=True, help="The picture: png, pdf or svg.",
)  # fmt: skip
def preview(methods: tuple[str, ...], *, task: str, data: str | None, seed: int, out: Path) -> None:
    """Draw what methods make of the same images, with the shares of their labels."""
    import tempfile

    from mixbench.cli.options import names
    from mixbench.figures.preview import preview as draw
    from mixbench.registry.units import find

    cards = [find("method", name) for name in names(methods)]
    card = find("task", task)
    with tempfile.TemporaryDirectory() as scratch:
        shown, folder = _images(card, data, Path(scratch))
        figure = draw(cards, shown, folder, card.declared["protocols"]["quick"].model, seed)
    figure.savefig(out, dpi=110)
    click.echo(out)


def _images(card: "Card", data: str | None, scratch: Path) -> "tuple[Task, Path]":
    """Return a task, and the folder of its data: the given one, what it bundles, or generated."""
    from dataclasses import replace

    from mixbench.plan.data import SYNTHETIC, locate
    from mixbench.plan.request import base_values
    from mixbench.registry.units import make_task

    protocol = "quick"
    if protocol not in card.declared["protocols"] or "evaluates" in card.declared:
        raise UsageError(f"The task {card.name} has no images of its own to mix; name another.")
    shown = make_task(card, base_values(card, protocol))
    place = locate(card, data, protocol, base_values(card, protocol))
    if place.origin != SYNTHETIC and place.folder is not None:
        return shown, place.folder
    few = replace(shown.synthetic, train=20, test=1)  # enough to hold one of each class out
    shown.synthesize(scratch, few)
    return shown, scratch


@click.group()
def new() -> None:
    """Write the beginning of a method."""


@new.command("method")
@click.argument("name")
@click.option("--package", is_flag=True, help="As a package of its own, with a test and CI.")
@click.option("--to", type=click.Path(path_type=Path, file_okay=False), default=".", metavar="DIR")
def new_method(name: str, *, package: bool, to: Path) -> None:
    """Write a method that works, to be changed into yours.

    It pastes a band of rows; `mixbench check`, `-m ./NAME.py` and `mixbench list` take it as it is.
    """  # noqa: DOC501  # commands tell their users
    from mixbench.scaffold.files import method_file, package_files

    if not name.isidentifier() or name != name.lower():
        raise UsageError(
            f"A method is named in small letters, digits and underscores, as my_mix (got {name!r})."
        )
    files = package_files(name) if package else {f"{name}.py": method_file(name)}
    for place in files:
        if (to / place).exists():
            raise UsageError(f"{to / place} is there already: choose another name or --to DIR.")
    for place, text in files.items():
        (to / place).parent.mkdir(parents=True, exist_ok=True)
        (to / place).write_text(text, encoding="utf-8")
        click.echo(to / place)
    if package:
        click.echo(f"Next: pip install -e {to / f'mixbench-{name}'}; mixbench check {name}")
    else:
        click.echo(f"Next: mixbench check {to / f'{name}.py'}")
