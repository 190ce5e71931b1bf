"""``mixbench score``: recompute metrics from stored predictions."""

from pathlib import Path

import click

from mixbench.cli.options import existing_store, names, store_option
from mixbench.cli.skipped import skip
from mixbench.errors import UsageError


@click.command()
@click.option("-t", "--task", "tasks", multiple=True, help="Rescore only these tasks.")
@store_option
def score(*, tasks: tuple[str, ...], store_path: Path) -> None:
    """Recompute metrics from stored predictions after a metric changed, without training.

    If the values or the version of the task differ, a new record is written that refers to the old
    one. Tables show the newest record.
    """  # noqa: DOC501  # commands report errors to the user
    from rich.console import Console
    from rich.progress import track

    from mixbench.leaderboard.rescoring import score_again
    from mixbench.leaderboard.store_report import read_records, write_reports
    from mixbench.registry.units import find

    store = existing_store(store_path)
    records = read_records(store, skip=skip)
    wanted, superseded = names(tasks), {record.rescored for record in records}
    chosen = [
        record
        for record in records
        if record.status == "ok"
        and record.digest not in superseded
        and (not wanted or record.task.name in wanted)
    ]
    if not chosen:
        raise UsageError(f"No record of a finished cell of {', '.join(wanted) or 'any task'}.")
    bar = track(chosen, "score", console=Console(stderr=True))
    written = [path for record in bar if (path := score_again(store, record))]
    for path in written:
        click.echo(path)
    click.echo(f"{len(chosen)} records scored again, {len(written)} differ.")
    for name, version in sorted({(record.task.name, record.task.version) for record in chosen}):
        if (now := find("task", name).version) != version:
            click.echo(
                f"Models of version {version} of {name} count as version {now} now. That is wrong "
                "if more than metrics changed between them: then remove these records, and run the "
                "cells again.",
                err=True,
            )
    write_reports(store, read_records(store, skip=lambda _: None))
