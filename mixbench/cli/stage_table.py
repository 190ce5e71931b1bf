"""Counts of a run's stages by state, one line for all seeds of a task, method and model."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from mixbench.cli.widths import columns

CELL = re.compile(r"(.*)/s(\d+)(?:/[^/]*)?")  # a cell, or a candidate of its tuning
LEAST = 20  # columns for the names, however narrow the terminal is


def stage_table(stages: Iterable[tuple[str, str]], states: Sequence[str]) -> str:
    """Return a table of how many stages are in which state.

    Parameters
    ----------
    stages
        Cell and state of each stage.
    states
        All states, in the order of their columns; those of no stage are left out.
    """
    from tabulate import tabulate

    counts: dict[str, Counter[str]] = defaultdict(Counter)
    seeds: dict[str, dict[str, None]] = defaultdict(dict)
    for cell, state in stages:
        found = CELL.fullmatch(cell)  # data is made for all seeds
        name = found[1] if found else cell
        counts[name][state] += 1
        seeds[name] |= {found[2]: None} if found else {}
    shown = [state for state in states if any(found[state] for found in counts.values())]
    rows = [
        [name, len(seeds[name]) or "", *(found[state] for state in shown)]
        for name, found in counts.items()
    ]
    head = ["task/method/model", "seeds", *shown]
    others = sum(len(name) + 4 for name in head[1:])  # as tabulate spaces headings
    widths = [max(LEAST, columns() - others), *([None] * (len(head) - 1))]
    return str(tabulate(rows, head, maxcolwidths=widths))
