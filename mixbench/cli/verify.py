"""``mixbench verify``: check the records of suites."""

from collections import Counter
from pathlib import Path

import click

from mixbench.cli.leaderboard import REFUSED, chosen_suites
from mixbench.cli.options import existing_store


@click.command()
@click.argument("names", nargs=-1)
@click.option("--base", metavar="COMMIT", help="Fail if a record of this commit was changed.")
@click.option(
    "--against",
    metavar="STORE",
    type=click.Path(path_type=Path),
    help="Store with rerun cells: records that it confirms are marked as rerun.",
)
@click.option("--check", is_flag=True, help="Do not write the results to verified.json.")
def verify(names: tuple[str, ...], *, base: str | None, against: Path | None, check: bool) -> int:
    """Check the records of suites: schema, versions, hashes, metric values and later edits."""
    from mixbench.leaderboard import verification
    from mixbench.leaderboard.store_report import read_records

    reruns = [] if against is None else read_records(existing_store(against))
    findings, notes = [], []
    for folder in chosen_suites(names):
        checked = verification.verify(folder, base=base, reruns=reruns)
        findings += checked.findings
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
