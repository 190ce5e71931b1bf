"""``mixbench compare``: compare two methods on every task that both have results for."""

from pathlib import Path

import click

from mixbench.cli.options import as_json, existing_store, names, rule_of, store_option
from mixbench.cli.report import recorded
from mixbench.cli.skipped import skip
from mixbench.cli.widths import wrapped


@click.command()
@click.argument("first")
@click.argument("second")
@click.option("-t", "--task", "tasks", multiple=True, help="Compare only on these tasks.")
@click.option("--suite", metavar="NAME", help="Use a suite's records instead of the store's.")
@as_json
@store_option
def compare(
    first: str,
    second: str,
    *,
    tasks: tuple[str, ...],
    suite: str | None,
    as_json: bool,
    store_path: Path,
) -> None:
    """Compare two methods on each task that both have results for, and over all these tasks."""
    from mixbench.leaderboard.pairs import compare_methods, to_json, to_lines
    from mixbench.leaderboard.store_report import read_records

    if suite is None:
        records = read_records(existing_store(store_path), skip=skip)
    else:
        from mixbench.leaderboard.build import read_answers
        from mixbench.leaderboard.suite import folder_of

        records = [*read_answers(folder_of(suite)).compared]
    found = compare_methods(recorded(records, (), names(tasks)), first, second, rule_of(suite))
    if as_json:
        click.echo(to_json(found))
        return
    for line in to_lines(found):
        click.echo(wrapped(line, 4))
