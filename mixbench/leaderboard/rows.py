"""Aggregate the runs of each method into the rows of a leaderboard."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from math import nan
from typing import Any

import pandas as pd

from mixbench.declare import BASELINE
from mixbench.leaderboard.grouping import method_label
from mixbench.leaderboard.ranks import Verdict
from mixbench.leaderboard.statistics import Comparison
from mixbench.records.schema import Cost, MetricRecord, Record

Row = Mapping[Hashable, Any]  # a row of a leaderboard's data frame


def runs_of(records: Iterable[Record]) -> pd.DataFrame:
    """Return one row for each run, with its metrics and costs."""
    rows = []
    for record in records:
        assert record.cost is not None  # records with status ok have a cost
        shown = (m for m in record.metrics if is_shown(m) and not m.primary)
        last = {m.name: m.value for m in shown}
        at_best = (m.value for m in record.metrics if m.primary and m.at == "best_validation")
        rows.append({
            "method": method_label(record),
            "seed": record.seed,
            "value": record.primary.value,
            **last,
            "best_gap": next(at_best, nan) - record.primary.value,
            "train_accuracy": record.train_accuracy,
            **_costs(record.cost),
        })
    return pd.DataFrame(rows)


def _costs(cost: Cost) -> dict[str, float | None]:
    """Return the costs of a run; costs that were not measured are None."""
    return {
        "images": cost.images,
        "minutes": cost.wall_s_total / 60,
        "gpu_hours": cost.gpu_hours_marginal if cost.peak_gpu_gib is not None else None,
        "gpu_hours_total": cost.gpu_hours_total if cost.peak_gpu_gib is not None else None,
        "peak_gpu_gib": cost.peak_gpu_gib,
        "peak_host_gib": cost.peak_host_gib,
        "energy_kwh": cost.energy_kwh,
        "extra_parameters": cost.extra_parameters,
    }


def is_shown(metric: MetricRecord) -> bool:
    """Return whether a metric has a column in the table."""
    return metric.at == "last" and not (metric.trivial_baseline or metric.detail)


def ranked_rows(
    runs: pd.DataFrame,
    found: Sequence[Verdict],
    described: Mapping[str, Comparison],
    *,
    higher_is_better: bool,
) -> pd.DataFrame:
    """Return one row per method, best first.

    If the methods have different seeds, they are sorted by their difference to the baseline over
    common seeds, because means over different seeds are not comparable; `other_seeds` marks them.

    Parameters
    ----------
    runs
        One row for each run.
    found
        The declared comparisons.
    described
        Differences to the baseline that were not declared, by method. They have no p-value.
    higher_is_better
        Whether a higher value of the primary metric is better.
    """
    means = runs.drop(columns=["method", "seed", "value"]).astype(float)
    means = means.groupby(runs["method"]).mean()
    summary = runs.groupby("method")["value"].agg(n="count", mean="mean", std="std")
    empty = {"difference": None, "low": None, "high": None, "p": None}
    to_baseline = {v.first: v for v in found if v.second == BASELINE}
    told = {m: dict(zip(empty, (*one[:3], None), strict=True)) for m, one in described.items()}
    told |= {
        m: dict(zip(empty, (*v.comparison[:3], v.corrected), strict=True))
        for m, v in to_baseline.items()
    }
    pairs = pd.DataFrame([told.get(m, empty) for m in summary.index], index=summary.index)
    pairs = pairs.astype(float)
    words = {method: verdict.word for method, verdict in to_baseline.items()}
    pairs["verdict"] = [words.get(method, "") for method in summary.index]
    seeds = runs.groupby("method")["seed"].agg(frozenset)
    usual = seeds.get(BASELINE, seeds.iloc[0])
    pairs["other_seeds"] = seeds != usual
    table = summary.join([pairs, means])
    order = ["mean"]
    if table["other_seeds"].any() and BASELINE in seeds:
        order = ["difference"]
        table.loc[BASELINE, "difference"] = 0.0
    table = table.sort_values(order, ascending=not higher_is_better, na_position="last")
    if BASELINE in seeds:
        table.loc[BASELINE, "difference"] = None
    named: pd.DataFrame = table.rename_axis("method").reset_index()
    return named
