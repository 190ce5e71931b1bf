"""From records to leaderboards. Pure: the same records give the same tables.

Records stand in one leaderboard if they answer the same question: same task and version, model,
protocol, recipe and data. A row is a method with its parameters; its runs are paired with those of
the baseline by seed, because runs of one seed see the same weights at the start, the same batches
and the same augmentations; and by test image, where the records tell of each.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import pandas as pd

from mixbench.declare import BASELINE
from mixbench.leaderboard.grouping import (
    changes,
    comparison_groups,
    group_name,
    method_label,
    origin,
)
from mixbench.leaderboard.ranks import (
    Compare,
    Verdict,
    against_baseline,
    compared,
    power_note,
    runs_by_method,
    shared_ranks,
)
from mixbench.leaderboard.references import published, source_notes, sources_of
from mixbench.leaderboard.rows import is_shown, ranked_rows, runs_of
from mixbench.leaderboard.statistics import LEVEL
from mixbench.records.schema import Record

Tiers = Mapping[str, str]  # who verified a record, by its digest
SELF_REPORTED = "self-reported"
TIERS = (SELF_REPORTED, "metrics recomputed", "rerun")  # rising


@dataclass(frozen=True)
class Leaderboard:
    """One question's answer.

    Attributes
    ----------
    name
        Fit for a file: task.model.protocol, and what else tells it from others.
    comparable
        Whether the data is the official one and the protocol a published one.
    rows
        One per method, best first: rank (one more than how many are significantly better), method,
        n, mean, deviation, difference, low, high, p (corrected), the published numbers with the
        marks of their sources and how far the mean is off, the secondary metrics, best_gap (what
        the best validation epoch has more than the last), the costs, what the recipe was tuned to,
        and who verified the records.
    notes
        What a reader must know beside the numbers.
    """

    name: str
    task: str
    model: str
    comparable: bool
    title: str
    facts: tuple[str, ...]
    rows: pd.DataFrame
    notes: tuple[str, ...]
    metric: str
    unit: str
    higher_is_better: bool
    secondary: tuple[str, ...]


def leaderboards(
    records: Iterable[Record],
    tiers: Tiers = MappingProxyType({}),
    compare: Compare = compared,
) -> list[Leaderboard]:
    """Return one leaderboard for every question that the records answer, by name.

    Parameters
    ----------
    tiers
        Who verified which record; the others are self-reported.
    compare
        Compares two methods' runs.
    """
    return [_leaderboard(group, tiers, compare) for group in comparison_groups(records)]


def _leaderboard(group: Sequence[Record], tiers: Tiers, compare: Compare) -> Leaderboard:
    """Return the leaderboard of the records of one question, at least one of which is ok."""
    good = [record for record in group if record.status == "ok"]
    first, primary = good[0], good[0].primary
    runs = runs_by_method((method_label(record), record) for record in good)
    verdicts = against_baseline(runs, compare)
    rows = ranked_rows(runs_of(good), verdicts, higher_is_better=primary.higher_is_better)
    ranks = shared_ranks(runs, higher_is_better=primary.higher_is_better, compare=compare)
    rows.insert(1, "rank", rows["method"].map(ranks))
    sources = sources_of(good)
    if sources:
        found = published(good, sources, method_label)
        for number, column in enumerate(("published", "off")):
            told = {method: texts[number] for method, texts in found.items()}
            rows[column] = rows["method"].map(told).fillna("")
    if first.tuning:
        rows["tuned_to"] = rows["method"].map(_chosen(good))
    rows["verified"] = [_tier(runs[method].values(), tiers) for method in rows["method"]]
    trivial_baselines = {
        m.name: m.value for m in first.metrics if m.at == "last" and m.trivial_baseline
    }
    notes = [*_notes(group, rows, verdicts), power_note(runs, primary.unit)]
    notes += [*_trivial_baseline_notes(first, rows, trivial_baselines), *source_notes(sources)]
    return Leaderboard(
        name=group_name(first),
        task=first.task.name,
        model=first.model,
        comparable=first.data.origin == "official" and first.protocol == "paper",
        title=f"{first.task.name} v{first.task.version}, {first.model}, protocol {first.protocol}",
        facts=tuple(_facts(good, trivial_baselines)),
        rows=rows,
        notes=tuple(filter(None, notes)),
        metric=primary.name,
        unit=primary.unit,
        higher_is_better=primary.higher_is_better,
        secondary=tuple(m.name for m in first.metrics if is_shown(m) and not m.primary),
    )


def _facts(good: Sequence[Record], trivial_baselines: Mapping[str, float]) -> Iterator[str]:
    """Yield what all rows have in common, and on what they were trained."""
    first = good[0]
    data, primary = first.data, first.primary
    yield ", ".join([" ".join([*origin(first), "data:", data.name]), data.version, *changes(first)])
    yield f"{primary.name} in {primary.unit}, last epoch, {primary.n} test items"
    yield from _budget(first)
    for name, value in trivial_baselines.items():
        yield f"{name} {value:.2f} without looking at the images"
    if machines := {r.hardware.gpu or r.hardware.cpu for r in good if r.hardware}:
        yield f"trained on {', '.join(sorted(machines))}"


def _tier(records: Iterable[Record], tiers: Tiers) -> str:
    """Return who verified a row: what all of its records have, or the least of it."""
    if not tiers:  # a digest takes a while
        return SELF_REPORTED
    found = [tiers.get(record.digest, SELF_REPORTED) for record in records]
    return min(found, key=TIERS.index)


def _budget(record: Record) -> Iterator[str]:
    """Say what every row was tuned over."""
    if record.tuning:
        tried = ((name, map(str, values)) for name, values in record.tuning.grid.items())
        grid = " x ".join(f"{name} of {', '.join(values)}" for name, values in tried)
        yield (
            f"tuned, every row and seed alike: the best of {record.tuning.trainings} trainings by "
            f"{record.primary.name} on images held out of training ({grid})"
        )


def _chosen(records: Iterable[Record]) -> dict[str, str]:
    """Return what every method was tuned to, by seed where the seeds differ."""
    found: dict[str, dict[int, str]] = defaultdict(dict)
    for record in records:
        assert record.tuning is not None  # it is part of the question
        values = " ".join(f"{name}={value}" for name, value in record.tuning.chosen.items())
        lost = f" ({record.tuning.diverged} diverged)" if record.tuning.diverged else ""
        found[method_label(record)][record.seed] = values + lost
    return {
        method: next(iter(by_seed.values()))
        if len(set(by_seed.values())) == 1
        else "; ".join(f"s{seed}: {by_seed[seed]}" for seed in sorted(by_seed))
        for method, by_seed in found.items()
    }


def _notes(
    group: Sequence[Record], rows: pd.DataFrame, verdicts: Mapping[str, Verdict]
) -> Iterator[str]:
    failed = sorted(f"{method_label(r)} s{r.seed} ({r.status})" for r in group if r.status != "ok")
    if failed:
        yield f"Without a number: {', '.join(failed)}."
    if group[0].data.origin != "official":
        yield f"The data is {group[0].data.origin}: these numbers say nothing about the real task."
    if BASELINE not in set(rows["method"]):
        yield f"No run of `{BASELINE}`, hence no difference to it: run `-m {BASELINE}` as well."
        return
    if verdicts:
        yield _how_compared(verdicts)
    if rows["n"].max() == 1:
        yield "One seed: nothing can be said about other seeds. More: --seeds 3."


def _how_compared(verdicts: Mapping[str, Verdict]) -> str:
    """Say what the differences and their p-values are."""
    items = {verdict.comparison.items for verdict in verdicts.values()}
    seeds = max(verdict.comparison.seeds for verdict in verdicts.values())
    if items == {0}:
        by = f"{LEVEL:.0%} t interval over seeds" if seeds > 1 else "no interval"
    else:
        by = f"{LEVEL:.0%} interval, by paired bootstrap over the test images"
        by += ", seeds nested" if seeds > 1 else " (p by McNemar's test)"
    return (
        f"vs {BASELINE}: mean difference of runs with the same seed, and its {by}; p is corrected "
        f"for {len(verdicts)} comparisons (Holm). A rank is one more than the number of methods "
        "that are significantly better, corrected for all pairs; ± is the deviation over seeds."
    )


def _trivial_baseline_notes(
    first: Record, rows: pd.DataFrame, trivial_baselines: Mapping[str, float]
) -> Iterator[str]:
    """Name the methods that are worse than what looks at nothing."""
    sign = 1 if first.primary.higher_is_better else -1
    for name, value in trivial_baselines.items():
        worse = rows["method"][sign * rows["mean"] < sign * value]
        if len(worse):
            yield f"Worse than {name}, which looks at nothing: {', '.join(worse)}."
