"""What each method costs: parameters, time of a step, preparation, and all in all."""

from collections import defaultdict
from collections.abc import Iterable
from statistics import mean
from typing import Any

import pandas as pd

from mixbench.declare import BASELINE
from mixbench.leaderboard.grouping import (
    comparison_groups,
    group_name,
    method_label,
    representative,
)
from mixbench.records.schema import Record


def costs(records: Iterable[Record]) -> pd.DataFrame:
    """Return a row for every question and method, each a mean over its runs.

    Times are of whatever machine ran them: compare rows of one question, run side by side.
    """
    rows = []
    for group in comparison_groups(records):
        runs: dict[str, list[Record]] = defaultdict(list)
        for record in group:
            if record.status == "ok":
                runs[method_label(record)].append(record)
        plain = mean(map(_total, runs[BASELINE])) if BASELINE in runs else None
        rows += [
            {"question": group_name(representative(group)), "method": name, **_row(own, plain)}
            for name, own in runs.items()
        ]
    return pd.DataFrame(rows)


def _row(records: list[Record], plain: float | None) -> dict[str, Any]:
    """Return the costs of a method's runs."""
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
        "of the model": f"{100 * extra / whole:.1f} %",
        "ms a step": f"{1000 * trained / steps:.1f}" if steps else "",
        "first models, s": f"{sum(first) / len(records):.1f}" if first else "",
        "preparation, s": f"{mean(prepared):.1f}" if prepared else "",
        "images": f"{mean(cost.images for cost in costs_):,.0f}",
        "in all, s": f"{total:.1f}",
        f"of {BASELINE}": f"{total / plain:.2f} x" if plain else "",
        "runs": str(len(records)),
    }


def _total(record: Record) -> float:
    """Return the seconds of all work that a run rests on."""
    return record.cost.wall_s_total if record.cost else 0.0
