"""``mixbench new``: write the beginning of a method or a task."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mixbench.errors import UsageError

if TYPE_CHECKING:
    from mixbench.registry.modules import Kind


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
