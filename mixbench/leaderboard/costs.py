"""The costs of each method: parameters, time per step, preparation and total time."""

from collections import defaultdict
from collections.abc import Iterable
from statistics import mean

import pandas as pd

from mixbench.declare import BASELINE
from mixbench.leaderboard.grouping import (
    comparison_groups,
    method_label,
    representative,
)
from mixbench.leaderboard.table import title_of
from mixbench.records.schema import Record


def costs(records: Iterable[Record]) -> pd.DataFrame:
    """Return one row for each leaderboard and method, with numbers that are means over its runs.

    Times depend on the machine: compare only rows of one leaderboard whose cells ran on the same
    hardware.
    """
    rows = []
    for group in comparison_groups(records):
        runs: dict[str, list[Record]] = defaultdict(list)
        for record in group:
            if record.status == "ok":
                runs[method_label(record)].append(record)
        plain = mean(map(_total, runs[BASELINE])) if BASELINE in runs else None
        rows += [
            {"leaderboard": title_of(representative(group)), "method": name, **_row(own, plain)}
            for name, own in runs.items()
        ]
    return pd.DataFrame(rows)


def _row(records: list[Record], plain: float | None) -> dict[str, float | None]:
    """Return the costs of a method, as means over its runs; None where there are none."""
    costs_ = [record.cost for record in records if record.cost is not None]
    extra, whole = costs_[0].extra_parameters, costs_[0].parameters
    total = mean(map(_total, records))
    own_steps = [stage for r in records for stage in r.stages if stage.own and stage.steps]
    steps = sum(stage.steps or 0 for stage in own_steps)
    trained = sum(stage.wall_s for stage in own_steps)
    prepared = [s.wall_s for r in records for s in r.stages if s.own and s.kind == "prepare"]
    first = [s.wall_s for r in records for s in r.stages if not s.own and s.kind == "train"]
    return {
        "extra parameters": extra,
        "extra / model parameters": extra / whole,
        "step time (ms)": 1000 * trained / steps if steps else None,
        "base models (s)": sum(first) / len(records) if first else None,
        "preparation (s)": sum(prepared) / len(records) if prepared else None,
        "images": mean(cost.images for cost in costs_),
        "total time (s)": total,
        f"time vs {BASELINE}": total / plain if plain else None,
        "seeds": len(records),
    }


def _total(record: Record) -> float:
    """Return the wall-clock time of all stages that a run depends on, in seconds."""
    return record.cost.wall_s_total if record.cost else 0.0
