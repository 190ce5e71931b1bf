"""Counts of a run's stages by state, one line for all seeds of a task, method and model."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from mixbench.cli.widths import table

CELL = re.compile(r"(.*)/s(\d+)(?:/[^/]*)?")  # a cell, or a candidate of its tuning


def stage_table(stages: Iterable[tuple[str, str]], states: Sequence[str]) -> str:
    """Return a table of how many stages are in which state.

    Parameters
    ----------
    stages
        Cell and state of each stage.
    states
        All states, in the order of their columns; those of no stage are left out.
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    seeds: dict[str, set[str]] = defaultdict(set)
    for cell, state in stages:
        found = CELL.fullmatch(cell)  # data is made for all seeds
        name = found[1] if found else cell
        counts[name][state] += 1
        seeds[name] |= {found[2]} if found else set()
    shown = [state for state in states if any(found[state] for found in counts.values())]
    rows = [
        [name, len(seeds[name]) or "", *(found[state] for state in shown)]
        for name, found in counts.items()
    ]
    return table(rows, ["task/method/model", "seeds", *shown], 0)
