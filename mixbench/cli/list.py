"""``mixbench list``: list methods, tasks or suites."""

import json
from typing import TYPE_CHECKING

import click

from mixbench.cli.options import as_json
from mixbench.cli.widths import wrapped
from mixbench.errors import InvalidUnit

if TYPE_CHECKING:
    from mixbench.registry.modules import Kind


KINDS: dict[str, "Kind"] = {"methods": "method", "tasks": "task"}


@click.command("list")
@click.argument("what", type=click.Choice((*KINDS, "suites")))
@as_json
def list_units(what: str, *, as_json: bool) -> None:
    """List the available methods, tasks, or suites of the checkout."""
    lines = _suites() if what == "suites" else _units(KINDS[what])
    if as_json:
        click.echo(json.dumps(lines, indent=1, ensure_ascii=False))
        return
    width = max(map(len, lines), default=0)
    for name, text in lines.items():
        click.echo(wrapped(text, width + 2, f"{name:{width}}  "))


def _units(kind: "Kind") -> dict[str, str]:
    """Return the one-line summary of every method or task, by name."""
    from mixbench.registry.units import available, find

    lines = {}
    for name in available(kind):
        try:
            card = find(kind, name)
            lines[name] = card.summary + (f" ({card.distribution})" if card.distribution else "")
        except InvalidUnit as error:  # one broken file must not hide the others
            lines[name] = f"broken: {error}"
    return lines


def _suites() -> dict[str, str]:
    """Return the question of every suite, by name."""
    from mixbench.leaderboard.suite import read_suite, suites

    return {name: read_suite(folder).question for name, folder in suites().items()}
