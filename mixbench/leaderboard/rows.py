"""Aggregate the runs of each method into the rows of a leaderboard."""

from collections.abc import Hashable, Iterable, Mapping
from typing import Any, Literal

import pandas as pd

from mixbench.leaderboard.grouping import method_label
from mixbench.leaderboard.ranks import ALPHA, Verdict
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
            "best_gap": next(at_best, record.primary.value) - record.primary.value,
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


def verdict(
    row: Row,
    *,
    higher_is_better: bool,
    alpha: float = ALPHA,
    margin: float = 0.0,
) -> Literal["better", "worse", "undecided"]:
    """Return whether a row's method is better or worse than the baseline, or undecided.

    Parameters
    ----------
    row
        Row of a leaderboard, with ``p`` and ``difference``.
    higher_is_better
        Whether a higher value of the metric is better.
    alpha
        Significance level for the corrected p-value.
    margin
        Smallest difference that counts, in the metric's unit.
    """
    p: float | None = row["p"]
    if p is None or not p <= alpha or abs(row["difference"]) < margin:
        return "undecided"
    return "better" if (row["difference"] > 0) == higher_is_better else "worse"


def is_shown(metric: MetricRecord) -> bool:
    """Return whether a metric has a column in the table."""
    return metric.at == "last" and not (metric.trivial_baseline or metric.detail)


def ranked_rows(
    runs: pd.DataFrame, verdicts: Mapping[str, Verdict], *, higher_is_better: bool
) -> pd.DataFrame:
    """Return one row per method, best first."""
    means = runs.drop(columns=["method", "seed", "value"]).astype(float)
    means = means.groupby(runs["method"]).mean()
    summary = runs.groupby("method")["value"].agg(n="count", mean="mean", std="std")
    empty = {"difference": None, "low": None, "high": None, "p": None}
    told = {
        m: dict(zip(empty, (*v.comparison[:3], v.corrected), strict=True))
        for m, v in verdicts.items()
    }
    pairs = pd.DataFrame([told.get(m, empty) for m in summary.index], index=summary.index)
    pairs = pairs.astype(float)
    table = summary.join([pairs, means]).sort_values("mean", ascending=not higher_is_better)
    named: pd.DataFrame = table.rename_axis("method").reset_index()
    return named
