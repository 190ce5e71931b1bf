"""``mixbench new``: create a new method or task from a template."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mixbench.errors import UsageError

if TYPE_CHECKING:
    from mixbench.registry.modules import Kind


@click.group()
def new() -> None:
    """Create a new method or task from a template."""


def _beginning(command: Callable[..., None]) -> Callable[..., None]:
    """Add the argument NAME and the options --to and --package to a command."""
    to = click.Path(path_type=Path, file_okay=False)
    for decorate in (
        click.option("--to", type=to, default=".", metavar="DIR", help="Target folder."),
        click.option(
            "--package", is_flag=True, help="Create a Python package with a test and a CI workflow."
        ),
        click.argument("name"),
    ):
        command = decorate(command)
    return command


@new.command("method")
@_beginning
def new_method(name: str, *, package: bool, to: Path) -> None:
    """Create a working example method for you to edit.

    The example pastes a band of rows from a partner image. It works without changes with
    `mixbench check`, `mixbench info` and `-m ./NAME.py`.
    """
    _write("method", name, to, package=package)


@new.command("task")
@_beginning
def new_task(name: str, *, package: bool, to: Path) -> None:
    """Create a working example task for you to edit.

    The example classifies images stored in one folder per class, and can generate such images. It
    works without changes with `mixbench check` and `-t ./NAME.py`.
    """
    _write("task", name, to, package=package)


def _write(kind: "Kind", name: str, to: Path, *, package: bool) -> None:
    from mixbench.scaffold.files import package_files, unit_file

    if not name.isidentifier() or name != name.lower():
        raise UsageError(
            f"The name of a {kind} must consist of lowercase letters, digits and underscores, as "
            f"in my_mix (got {name!r})."
        )
    files = package_files(kind, name) if package else {f"{name}.py": unit_file(kind, name)}
    for place in files:
        if (to / place).exists():
            raise UsageError(f"{to / place} already exists: choose another name or --to DIR.")
    for place, text in files.items():
        (to / place).parent.mkdir(parents=True, exist_ok=True)
        (to / place).write_text(text, encoding="utf-8")
        click.echo(to / place)
    if package:
        click.echo(f"Next: pip install -e {to / f'mixbench-{name}'}; mixbench check {name}")
    else:
        click.echo(f"Next: mixbench check {to / f'{name}.py'}")
