"""``mixbench verify``: check the records of suites."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click

from mixbench.cli.leaderboard import REFUSED, chosen_suites
from mixbench.cli.options import existing_store
from mixbench.cli.skipped import skip
from mixbench.errors import UsageError

if TYPE_CHECKING:
    from mixbench.leaderboard.evidence import Evidence, Finding
    from mixbench.leaderboard.history import History
    from mixbench.plan.request import Request
    from mixbench.records.schema import Record

LONGEST_S = 1800  # of one rerun


@click.command()
@click.argument("names", nargs=-1)
@click.option("--base", metavar="COMMIT", help="Fail if a file of this commit was changed.")
@click.option(
    "--against",
    metavar="STORE",
    type=click.Path(path_type=Path),
    help="Store with rerun cells: records that it confirms are marked as rerun.",
)
@click.option(
    "--rerun",
    is_flag=True,
    help="Run one record that is new since --base again, which the commit's hash draws among those "
    "that are cheap to run.",
)
@click.option("--check", is_flag=True, help="Do not write the results to verified.json.")
def verify(
    names: tuple[str, ...], *, base: str | None, against: Path | None, rerun: bool, check: bool
) -> int:
    """Check the files of suites: records, their metrics and artifacts, figures and later edits."""
    from mixbench.leaderboard import verification
    from mixbench.leaderboard.evidence import read_evidence
    from mixbench.leaderboard.history import history, missing_suites
    from mixbench.leaderboard.store_report import read_records

    if rerun and base is None:
        raise UsageError("--rerun needs --base COMMIT: it draws among the records that are new.")
    reruns = [] if against is None else read_records(existing_store(against), skip=skip)
    findings = [*missing_suites(base)] if base is not None and not names else []
    notes = []
    for folder in chosen_suites(names):
        evidence = read_evidence(folder)
        earlier = None if base is None else history(evidence, base)
        again, failed = _rerun(evidence, earlier) if rerun and earlier else ([], [])
        checked = verification.check(evidence, earlier, [*reruns, *again])
        findings += [*checked.findings, *failed]
        notes += checked.notes
        counts = Counter(checked.tiers.values())
        said = ", ".join(f"{count} {tier}" for tier, count in sorted(counts.items()))
        click.echo(f"{folder.name}: {len(checked.tiers)} records{f' ({said})' if said else ''}")
        if not check and not checked.findings:
            verification.note_tiers(folder, checked.tiers)
    for note in notes:
        click.echo(f"note: {note}")
    for finding in findings:
        click.echo(f"error: {finding}", err=True)
    return REFUSED if findings else 0


def _rerun(evidence: "Evidence", earlier: "History") -> "tuple[list[Record], list[Finding]]":
    """Run one of the new records of a suite again; return the records of the reruns, and findings.

    If its result has other bits, as on another kind of CPU, two more seeds are run, because it
    takes three to judge the difference.
    """
    from mixbench.leaderboard.evidence import Finding
    from mixbench.leaderboard.history import git
    from mixbench.leaderboard.reruns import LEAST_RERUNS, drawn, request_of, same_bits

    folder = evidence.folder
    commit = git(folder, "rev-parse", "HEAD").stdout.strip()
    record = drawn(evidence, earlier.added, commit)
    if record is None:
        click.echo(f"{folder.name}: no new record is cheap to run again")
        return [], []
    click.echo(f"{folder.name}: {record.cell} is run again")
    others = [seed for seed in range(LEAST_RERUNS) if seed != record.seed][: LEAST_RERUNS - 1]
    with TemporaryDirectory() as place:
        reruns = _run([request_of(evidence, record, record.seed)], Path(place))
        if not any(same_bits(record, other) for other in reruns):
            click.echo(f"{folder.name}: with other bits, so seeds {others} are run too")
            reruns = _run([request_of(evidence, record, n) for n in others], Path(place))
    if any(one.status == "ok" and one.seed == record.seed for one in reruns):
        return reruns, []
    return [], [Finding(folder, record.cell, "has no result when it is run again")]


def _run(requests: "Iterable[Request]", place: Path) -> "list[Record]":
    """Run the cells of requests in a folder of their own; return all records of its store."""
    from mixbench.leaderboard.reruns import words
    from mixbench.leaderboard.store_report import read_records
    from mixbench.storage.store import Store

    # The working folder is a stranger's: nothing is imported or configured from there.
    safe = {**os.environ, "PYTHONSAFEPATH": "1"}
    store = place / "store"
    for request in requests:
        command = [sys.executable, "-m", "mixbench", *words(request), "--store", str(store)]
        with suppress(subprocess.TimeoutExpired):
            subprocess.run(
                command, check=False, stdout=subprocess.DEVNULL, env=safe, cwd=place,
                timeout=LONGEST_S,
            )  # fmt: skip
    return read_records(Store(store))
