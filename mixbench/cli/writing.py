"""``mixbench check``, ``preview`` and ``new``: for whoever writes a method or a task."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mixbench.cli.options import as_json
from mixbench.errors import UsageError

if TYPE_CHECKING:
    from mixbench.contract import Task
    from mixbench.registry.cards import Card, Kind

REFUSED = 3


@click.command()
@click.argument("unit")
@as_json
def check(unit: str, *, as_json: bool) -> int:
    """Check whether a method or a task, by its name or its file, keeps the contract."""
    from mixbench.registry.units import find, kind_of, load_method, load_task
    from mixbench.testing import METHOD_CHECKS, TASK_CHECKS, TaskSubject, run_checks, subject_of
    from mixbench.testing.checks import Check, HasCard

    kind = kind_of(unit)
    card = find(kind, unit)
    subject: HasCard
    checks: tuple[Check, ...]
    if kind == "method":
        load_method(card)
        subject, checks = subject_of(card), METHOD_CHECKS
    else:
        load_task(card)
        subject, checks = TaskSubject(card), TASK_CHECKS
    results = []
    width = max(len(one.__name__) for one in checks)
    for result in run_checks(subject, checks):
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
        said = f"{len(results)} of {len(checks)} checks ran: {kept} ok"
        click.echo(f"{said}, {exempt} exempt, {failed} failed")
    return REFUSED if failed else 0


@click.command()
@click.argument("methods", nargs=-1, required=True)
@click.option("-t", "--task", help="On a task's images; generated, unless --data has them.")
@click.option("--data", metavar="PATH", help="The task's data.")
@click.option(
    "--images", type=click.Path(path_type=Path, file_okay=False, exists=True), metavar="DIR",
    help="On the pictures in a folder; without a folder or a task, on three photographs.",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, help="Of the images and the mixing.")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), default="preview.png",
    show_default=True, help="The picture: png, pdf or svg.",
)  # fmt: skip
def preview(
    methods: tuple[str, ...],
    *,
    task: str | None,
    data: str | None,
    images: Path | None,
    seed: int,
    out: Path,
) -> None:
    """Draw what methods make of the same images, with the shares of their labels.

    A terminal with colours shows it as well.
    """  # noqa: DOC501  # commands tell their users
    import tempfile

    from rich.console import Console

    from mixbench.cli.options import names
    from mixbench.figures.pictures import bundled, pictures_in
    from mixbench.figures.preview import drawn
    from mixbench.figures.preview import preview as rows_of
    from mixbench.figures.terminal import in_text
    from mixbench.registry.units import find

    if images is not None and (task or data):
        raise UsageError("--images takes pictures without a task: leave out --task and --data.")
    cards = [find("method", name) for name in names(methods)]
    with tempfile.TemporaryDirectory() as scratch:
        if task is None:
            shown = pictures_in(images) if images else bundled()
            rows = rows_of(cards, shown, Path(), "", seed)
        else:
            card = find("task", task)
            of_task, folder = _images(card, data, Path(scratch))
            model = card.declared["protocols"]["quick"].model
            rows = rows_of(cards, of_task, folder, model, seed)
    drawn(rows).savefig(out, dpi=110)
    console = Console()
    if console.color_system:
        console.print(in_text(rows, console.width))
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
    """Write the beginning of a method or a task."""


def _beginning(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of what is written where."""
    to = click.Path(path_type=Path, file_okay=False)
    for decorate in (
        click.option("--to", type=to, default=".", metavar="DIR", help="Where; by default, here."),
        click.option(
            "--package", is_flag=True, help="As a package of its own, with a test and CI."
        ),
        click.argument("name"),
    ):
        command = decorate(command)
    return command


@new.command("method")
@_beginning
def new_method(name: str, *, package: bool, to: Path) -> None:
    """Write a method that works, to be changed into yours.

    It pastes a band of rows; `mixbench check`, `mixbench info` and `-m ./NAME.py` take it as it is.
    """
    _write("method", name, to, package=package)


@new.command("task")
@_beginning
def new_task(name: str, *, package: bool, to: Path) -> None:
    """Write a task that works, to be changed into yours.

    It classifies images in a folder for each class, and generates some; `mixbench check` and
    `-t ./NAME.py` take it as it is.
    """
    _write("task", name, to, package=package)


def _write(kind: "Kind", name: str, to: Path, *, package: bool) -> None:
    from mixbench.scaffold.files import package_files, unit_file

    if not name.isidentifier() or name != name.lower():
        raise UsageError(
            f"A {kind} is named in small letters, digits and underscores, as my_mix (got {name!r})."
        )
    files = package_files(kind, name) if package else {f"{name}.py": unit_file(kind, name)}
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
