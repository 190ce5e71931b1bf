"""``mixbench check`` and ``mixbench new``: for whoever writes a method."""

import json
from pathlib import Path

import click

from mixbench.cli.options import as_json
from mixbench.errors import UsageError

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
