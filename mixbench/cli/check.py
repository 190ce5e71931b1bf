"""``mixbench check``: check whether a method or task satisfies its contract."""

import json
from collections import Counter

import click

from mixbench.cli.options import as_json
from mixbench.cli.widths import wrapped

REFUSED = 3


@click.command()
@click.argument("unit")
@as_json
def check(unit: str, *, as_json: bool) -> int:
    """Check whether a method or task, given by name or file, satisfies the contract."""
    import torch

    from mixbench.contract.loading import load_method, load_task
    from mixbench.registry.cards import TaskCard
    from mixbench.registry.units import find, kind_of
    from mixbench.testing import METHOD_CHECKS, TASK_CHECKS, TaskSubject, run_checks, subject_of
    from mixbench.testing.checks import Check, HasCard

    torch.set_num_threads(1)  # more do not help with networks as small as these
    card = find(kind_of(unit), unit)
    subject: HasCard
    checks: tuple[Check, ...]
    if isinstance(card, TaskCard):
        load_task(card)
        subject, checks = TaskSubject(card), TASK_CHECKS
    else:
        load_method(card)
        subject, checks = subject_of(card), METHOD_CHECKS
    width = max(len(one.__name__) for one in checks)
    results = []
    for result in run_checks(subject, checks):
        results.append(result)
        if as_json:
            continue
        click.echo(wrapped(result.said, 8, f"{result.status:6}  {result.check:{width}}  "))
        if result.remedy:
            click.echo(wrapped(f"{card.path}:{result.line}: {result.remedy}", 8, " " * 8))
    counts = Counter(result.status for result in results)
    if as_json:
        click.echo(json.dumps([result._asdict() for result in results], indent=1))
    else:
        click.echo(
            f"{len(results)} of {len(checks)} checks ran: {counts['ok']} ok, "
            f"{counts['exempt']} exempt, {counts['FAILED']} failed"
        )
    return REFUSED if counts["FAILED"] else 0
