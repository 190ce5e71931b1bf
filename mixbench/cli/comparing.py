"""``mixbench compare`` and ``mixbench score``: two methods side by side, and numbers anew."""

from pathlib import Path

import click

from mixbench.cli.options import as_json, existing_store, names, store_option
from mixbench.cli.reports import recorded
from mixbench.errors import UsageError


@click.command()
@click.argument("first")
@click.argument("second")
@click.option("-t", "--task", "tasks", multiple=True, help="Only these tasks.")
@click.option("--suite", metavar="NAME", help="The records of a suite, instead of the store's.")
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
    """Compare two methods, on every task that both have run on, and over all of them."""
    from mixbench.leaderboard.pairs import compare_methods, to_json, to_lines
    from mixbench.leaderboard.reports import read_records

    if suite is None:
        records = read_records(existing_store(store_path))
    else:
        from mixbench.leaderboard.build import read_answers
        from mixbench.leaderboard.suites import folder_of

        records = [*read_answers(folder_of(suite)).records.values()]
    found = compare_methods(recorded(records, (), names(tasks)), first, second)
    click.echo(to_json(found) if as_json else "\n".join(to_lines(found)))


@click.command()
@click.option("-t", "--task", "tasks", multiple=True, help="Only these tasks.")
@store_option
def score(*, tasks: tuple[str, ...], store_path: Path) -> None:
    """Recompute metrics from stored predictions, after a metric was changed; trains nothing.

    What differs becomes a new record, which names the old one; tables show the newest.
    """  # noqa: DOC501  # commands tell their users
    from rich.console import Console
    from rich.progress import track

    from mixbench.leaderboard.reports import read_records, write_reports
    from mixbench.records.rescoring import score_again

    store = existing_store(store_path)
    records = read_records(store)
    wanted, superseded = names(tasks), {record.rescored for record in records}
    chosen = [
        record
        for record in records
        if record.status == "ok"
        and record.digest not in superseded
        and (not wanted or record.task.name in wanted)
    ]
    if not chosen:
        raise UsageError(f"No finished cell of {', '.join(wanted) or 'any task'} is recorded.")
    bar = track(chosen, "score", console=Console(stderr=True))
    written = [path for record in bar if (path := score_again(store, record))]
    for path in written:
        click.echo(path)
    click.echo(f"{len(chosen)} records scored again, {len(written)} differ.")
    write_reports(store, read_records(store))
