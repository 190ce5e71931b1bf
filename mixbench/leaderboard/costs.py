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
    """Return one row for each leaderboard and method, with means over the method's runs.

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


def _row(records: list[Record], plain: float | None) -> dict[str, str]:
    """Return the formatted costs of a method, as means over its runs."""
    costs_ = [record.cost for record in records if record.cost is not None]
    extra, whole = costs_[0].extra_parameters, costs_[0].parameters
    total = mean(map(_total, records))
    own_steps = [stage for r in records for stage in r.stages if stage.own and stage.steps]
    steps = sum(stage.steps or 0 for stage in own_steps)
    trained = sum(stage.wall_s for stage in own_steps)
    prepared = [s.wall_s for r in records for s in r.stages if s.own and s.kind == "prepare"]
    first = [s.wall_s for r in records for s in r.stages if not s.own and s.kind == "train"]
    return {
        "extra parameters": f"{extra:,}",
        "extra / model parameters": f"{100 * extra / whole:.1f} %",
        "step time (ms)": f"{1000 * trained / steps:.1f}" if steps else "",
        "base models (s)": f"{sum(first) / len(records):.1f}" if first else "",
        "preparation (s)": f"{mean(prepared):.1f}" if prepared else "",
        "images": f"{mean(cost.images for cost in costs_):,.0f}",
        "total time (s)": f"{total:.1f}",
        f"time vs {BASELINE}": f"{total / plain:.2f} x" if plain else "",
        "seeds": str(len(records)),
    }


def _total(record: Record) -> float:
    """Return the wall-clock time of all stages that a run depends on, in seconds."""
    return record.cost.wall_s_total if record.cost else 0.0
