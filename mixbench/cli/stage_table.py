"""Counts of a run's stages by state, one line for all seeds of a task, method and model."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from mixbench.cli.widths import columns

LEAST = 30  # columns for the names, however narrow the terminal is


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
        name, _, seed = cell.rpartition("/s")
        counts[name][state] += 1
        seeds[name][seed] = None
    shown = [state for state in states if any(found[state] for found in counts.values())]
    rows = [[name, len(seeds[name]), *(found[s] for s in shown)] for name, found in counts.items()]
    head = ["task/method/model", "seeds", *shown]
    others = sum(len(name) + 2 for name in head[1:])
    widths = [max(LEAST, columns() - others), *([None] * (len(head) - 1))]
    return str(tabulate(rows, head, maxcolwidths=widths))
