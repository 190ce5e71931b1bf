"""Build leaderboards from records. The same records always give the same tables.

Records belong to one leaderboard if they have the same task and version, model, protocol, recipe
and data. A row is a method with its parameters. Its runs are paired with those of the baseline by
seed, because runs with the same seed use the same initial weights, batches and augmentations. They
are also paired by test image if the records contain per-item scores.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd

from mixbench.datasets.locate import declared_holdout
from mixbench.declare import BASELINE
from mixbench.errors import MixbenchError
from mixbench.leaderboard.grouping import (
    PER_CLASS,
    changes,
    comparison_groups,
    group_name,
    method_label,
    origin,
    own_data,
    trial,
)
from mixbench.leaderboard.numbers import difference_text, p_text
from mixbench.leaderboard.ranks import (
    Rule,
    Runs,
    Verdict,
    compared,
    compared_by_seed,
    power_note,
    rank_ranges,
    runs_by_method,
    seeds_note,
    verdicts,
)
from mixbench.leaderboard.references import published, source_notes, sources_of
from mixbench.leaderboard.rows import is_shown, ranked_rows, runs_of
from mixbench.leaderboard.statistics import LEVEL, Comparison, holm
from mixbench.records.schema import Record
from mixbench.registry.units import find
from mixbench.storage.spec import PUBLISHED, Origin

SELF_REPORTED = "self-reported"
DEFAULT_RULE = Rule()  # each method is compared with the baseline
# Verification tiers, in ascending order; docs/trust.md says what each of them proves.
TIERS = (SELF_REPORTED, "consistent with submitted predictions", "rerun")
AS_REPORTED = (
    "As reported, because nothing submitted can prove it: the training accuracy, best - last, "
    "times, memory, energy, images and hardware."
)


OF_PROBABILITIES = ("cross_entropy", "calibration_error")


class PairedMetric(NamedTuple):
    """A declared comparison on another metric than the primary, paired by seed.

    Attributes
    ----------
    metric
        Name of the metric.
    first, second
        Labels of the methods.
    comparison
        Difference of the first to the second.
    corrected
        P-value, corrected over all comparisons on such metrics (Holm); None if there is none.
    """

    metric: str
    first: str
    second: str
    comparison: Comparison
    corrected: float | None


@dataclass(frozen=True)
class Submitted:
    """What is known about records that somebody submitted.

    Attributes
    ----------
    tiers
        Verification tier of each record, by digest; missing records are self-reported.
    older
        Digests of the records of an older code of the same version.
    """

    tiers: Mapping[str, str]
    older: frozenset[str]


@dataclass(frozen=True)
class Leaderboard:
    """The table of one comparison group.

    Attributes
    ----------
    name
        Name of the comparison group, usable as a file name: ``task.model.protocol``, followed by
        the data origin and the changed parameters, if any.
    task
        Name of the task.
    model
        Name of the model.
    comparable
        Whether published results can be compared: official data and the protocol ``paper``.
    title
        Heading of the table.
    facts
        Properties that all rows share: data, metric, tuning budget and hardware.
    data_set
        Name of the data set whose images are tested, without attacks and corruptions.
    comparisons
        The declared comparisons.
    probabilities
        The same comparisons on the cross-entropy and the calibration error, with at least three
        seeds.
    rows
        One row per method, best first. Columns: method, first_rank and last_rank (the ranks that
        the comparisons allow; NaN if they allow no verdict), n (number of seeds), mean, std
        (standard deviation over seeds), difference to the baseline, low and high (its confidence
        interval), p (corrected by Holm's method; NaN if it was not declared), verdict (better or
        worse than the baseline, or undecided; empty without a p-value), other_seeds (whether its
        seeds differ from those of the baseline), published and off (published results with the
        marks of their sources, and
        the difference of the measured mean to them), the secondary metrics, best_gap (primary
        metric at the best validation epoch minus that after the last epoch), train_accuracy, the
        costs, tuned_to (the tuned recipe values) and verified (the verification tier).
    notes
        Notes to print below the table.
    metric
        Name of the primary metric.
    unit
        Unit of the primary metric.
    higher_is_better
        Whether a higher value of the primary metric is better.
    secondary
        Names of the other metrics that have a column.
    """

    name: str
    task: str
    model: str
    comparable: bool
    title: str
    facts: tuple[str, ...]
    data_set: str
    comparisons: tuple[Verdict, ...]
    probabilities: tuple[PairedMetric, ...]
    rows: pd.DataFrame
    notes: tuple[str, ...]
    metric: str
    unit: str
    higher_is_better: bool
    secondary: tuple[str, ...]


def leaderboards(
    records: Iterable[Record],
    submitted: Submitted | None = None,
    rule: Rule = DEFAULT_RULE,
) -> list[Leaderboard]:
    """Return one leaderboard for each comparison group of the records, sorted by name.

    Parameters
    ----------
    records
        Records of any tasks, models and protocols.
    submitted
        What is known about submitted records; None for records of one's own.
    rule
        Which methods are compared, and when one is better or worse than another.
    """
    return [_leaderboard(group, submitted, rule) for group in comparison_groups(records)]


def _leaderboard(group: Sequence[Record], submitted: Submitted | None, rule: Rule) -> Leaderboard:
    """Return the leaderboard of a comparison group; one record or more must have status ``ok``."""
    good = [record for record in group if record.status == "ok"]
    first, primary = good[0], good[0].primary
    runs = runs_by_method((method_label(record), record) for record in good)
    of_trial = ", ".join(trial(first))
    found = [] if of_trial else verdicts(runs, rule, higher_is_better=primary.higher_is_better)
    described = _described(runs, found) if rule.pairings and not of_trial else {}
    rows = ranked_rows(runs_of(good), found, described, higher_is_better=primary.higher_is_better)
    ranks = rank_ranges([*runs], found)
    for place, column in enumerate(("first_rank", "last_rank")):
        allowed = {method: both[place] for method, both in ranks.items()}
        rows.insert(1 + place, column, rows["method"].map(allowed).astype(float))
    sources = sources_of(good)
    if sources:
        numbers = published(good, sources, method_label)
        for number, column in enumerate(("published", "off")):
            told = {method: texts[number] for method, texts in numbers.items()}
            rows[column] = rows["method"].map(told).fillna("")
    if first.tuning:
        rows["tuned_to"] = rows["method"].map(_chosen(good))
    rows["verified"] = [_tier(runs[method].values(), submitted) for method in rows["method"]]
    trivial_baselines = {
        m.name: m.value for m in first.metrics if m.at == "last" and m.trivial_baseline
    }
    notes = [*_notes(group, rows, found), *_other_comparisons(found)]
    notes += [f"A trial, {of_trial}: nothing is ranked." if of_trial else seeds_note(runs, found)]
    if absent := rule.unmatched([*runs]):
        notes.append(f"Declared comparisons without a row: {', '.join(absent)}.")
    notes += [power_note(found, rule, primary.unit)]
    notes += [*_trivial_baseline_notes(first, rows, trivial_baselines), *source_notes(sources)]
    notes += [AS_REPORTED] if submitted else []
    return Leaderboard(
        name=group_name(first),
        task=first.task.name,
        model=first.model,
        comparable=first.data.origin in PUBLISHED and first.protocol == "paper",
        title=", ".join(one for one in _said(first) if not one.startswith(LAYOUT)),
        facts=tuple(_facts(good, trivial_baselines)),
        data_set=data_set_of(first),
        comparisons=tuple(found),
        probabilities=_of_probabilities(runs, found),
        rows=rows,
        notes=tuple(filter(None, notes)),
        metric=primary.name,
        unit=primary.unit,
        higher_is_better=primary.higher_is_better,
        secondary=tuple(m.name for m in first.metrics if is_shown(m) and not m.primary),
    )


def title_of(record: Record) -> str:
    """Return the name of a group in words: its task, model, protocol, data, and what was changed.

    It says all that `group_name` says, unlike the heading of a leaderboard.
    """
    return ", ".join(_said(record))


def _said(record: Record) -> list[str]:
    task = " ".join([record.task.name, *own_data(record)])
    named = [f"{task} v{record.task.version}", record.model, f"protocol {record.protocol}"]
    number = record.task.parameters.get(PER_CLASS)
    few = f"{PER_CLASS}={number}"
    named += [few] if number else []
    return [*named, *origin(record), *(one for one in changes(record) if one != few)]


def _described(runs: Mapping[str, Runs], found: Sequence[Verdict]) -> dict[str, Comparison]:
    """Return the differences to the baseline that no declared comparison is about, by method."""
    declared = {verdict.first for verdict in found if verdict.second == BASELINE}
    others = (method for method in runs if method not in {BASELINE, *declared})
    if BASELINE not in runs:
        return {}
    differences = ((method, compared(runs[method], runs[BASELINE])) for method in others)
    return {method: one for method, one in differences if one is not None}


def _facts(good: Sequence[Record], trivial_baselines: Mapping[str, float]) -> Iterator[str]:
    """Yield the properties that all rows share, and the hardware that trained them."""
    first = good[0]
    data, primary = first.data, first.primary
    named = " ".join([*origin(first), "data:", data.name])
    yield ", ".join(filter(None, [named, data.version]))
    yield f"{primary.name} in {primary.unit}, last epoch, {primary.n} test items"
    if first.normalization:
        mean, std = (", ".join(f"{v:g}" for v in values) for values in first.normalization)
        yield f"images normalised as for timm's initial weights: mean {mean}; std {std}"
    yield from _trained_on(first)
    yield from (one for one in changes(first) if one.startswith(LAYOUT))
    yield from _own_mixing(good)
    yield from _budget(first)
    for name, value in trivial_baselines.items():
        yield f"{name} {value:.2f} (trivial baseline that does not use the images)"
    if machines := {r.hardware.gpu or r.hardware.cpu for r in good if r.hardware}:
        yield f"trained on {', '.join(sorted(machines))}"


def _of_probabilities(
    runs: Mapping[str, Runs], found: Sequence[Verdict]
) -> tuple[PairedMetric, ...]:
    """Return the declared comparisons on the metrics of probabilities, paired by seed."""
    pairs = [
        (name, verdict, comparison)
        for name in OF_PROBABILITIES
        for verdict in found
        if (comparison := compared_by_seed(runs[verdict.first], runs[verdict.second], name))
    ]
    corrected = holm([comparison.p for *_, comparison in pairs])
    return tuple(
        PairedMetric(name, verdict.first, verdict.second, comparison, p)
        for (name, verdict, comparison), p in zip(pairs, corrected, strict=True)
        if comparison.p is not None
    )


def _tier(records: Iterable[Record], submitted: Submitted | None) -> str:
    """Return the lowest verification tier of a row's records, and whether their code is older."""
    if submitted is None:  # computing digests is slow
        return SELF_REPORTED
    digests = [record.digest for record in records]
    tier = min((submitted.tiers.get(d, SELF_REPORTED) for d in digests), key=TIERS.index)
    return f"{tier}, older code" if submitted.older.intersection(digests) else tier


def _own_mixing(good: Sequence[Record]) -> Iterator[str]:
    """Yield which method is the mixing that the published recipe of the protocol has."""
    for name in dict.fromkeys(r.method.name for r in good if not r.method.changed):
        with suppress(MixbenchError):  # a method of a plugin that is not installed
            if good[0].protocol in find("method", name).declared.recipe_of:
                yield f"{name} is the recipe's own mixing: {good[0].protocol} was published with it"


def _trained_on(record: Record) -> Iterator[str]:
    """Yield how much of the official training images the models were trained on, if known."""
    held_out, unit = record.held_out, record.base_task or record.task
    trained = any(stage.kind == "train" for stage in record.stages)
    if held_out is None and trained:  # records before November 2026
        with suppress(MixbenchError):  # the task of a plugin that is not installed
            held_out = declared_holdout(find("task", unit.name), unit.parameters)
    images = "official " if record.data.origin in PUBLISHED else ""
    images = f"the {images}training images"
    if limit := record.recipe.get("limit"):
        yield f"a trial, trained on at most {limit} images"
        return
    if per_class := unit.parameters.get(PER_CLASS):
        images = f"{per_class} training images of each class, which the seed draws"
    if held_out == 0:
        yield f"trained on all of {images}"
    elif held_out is not None:
        yield f"trained on {100 * (1 - held_out):.3g} % of {images}; the others are for validation"


def _budget(record: Record) -> Iterator[str]:
    """Yield a description of the tuning budget, if the recipe was tuned."""
    if record.tuning:
        tried = ((name, map(str, values)) for name, values in record.tuning.grid.items())
        grid = " x ".join(f"{name} in {', '.join(values)}" for name, values in tried)
        yield (
            f"tuned for each row and seed: the best of {record.tuning.trainings} trainings by "
            f"{record.primary.name} on the validation split ({grid})"
        )


def _chosen(records: Iterable[Record]) -> dict[str, str]:
    """Return the tuned recipe values of each method, listed by seed if the seeds differ."""
    found: dict[str, dict[int, str]] = defaultdict(dict)
    for record in records:
        assert record.tuning is not None  # all records of a group are tuned, or none
        values = " ".join(f"{name}={value}" for name, value in record.tuning.chosen.items())
        lost = f" ({record.tuning.diverged} diverged)" if record.tuning.diverged else ""
        found[method_label(record)][record.seed] = values + lost
    return {
        method: next(iter(by_seed.values()))
        if len(set(by_seed.values())) == 1
        else "; ".join(f"s{seed}: {by_seed[seed]}" for seed in sorted(by_seed))
        for method, by_seed in found.items()
    }


LAYOUT = "memory_format="  # how images lie in memory, which is said below it
DATA_NOTES: Mapping[Origin, str] = {
    "official": "",
    "counted": "Files are as many as published, and published digests match; other contents are "
    "not verified.",
    "re-encoded": "The images are a re-encoded copy, which is lossy: compare these results only "
    "with each other.",
    "modified": "The data differs from the published data: the results say nothing about the real "
    "task.",
    "own": "The data is the user's own: nothing is published to compare it with.",
    "synthetic": "The data is synthetic: the results say nothing about the real task.",
}


def _notes(group: Sequence[Record], rows: pd.DataFrame, found: Sequence[Verdict]) -> Iterator[str]:
    failed = sorted(f"{method_label(r)} s{r.seed} ({r.status})" for r in group if r.status != "ok")
    if failed:
        yield f"Runs without a result: {', '.join(failed)}."
    if note := DATA_NOTES[group[0].data.origin]:
        yield note
    copies = max((r.data.contents.duplicates or 0 for r in group if r.data.contents), default=0)
    if copies:
        yield (
            f"Copies in the data: {copies:,}. Where one of two equal images is for "
            "training and the other for testing, the results are too good."
        )
    if BASELINE not in set(rows["method"]):
        yield f"No run of {BASELINE}, so there are no differences to it: add -m {BASELINE}."
        return
    if any(verdict.word and verdict.second == BASELINE for verdict in found):
        yield _how_compared(found)
    without_p = rows["low"].notna() & rows["p"].isna()
    if found and without_p.any():
        yield (
            "A difference without p was not declared before the runs: it describes them, and "
            "decides nothing."
        )
    if rows["other_seeds"].any():
        yield (
            f"Rows with * have other seeds than {BASELINE}: means over other seeds are not "
            "comparable, so the rows are sorted by the difference over common seeds."
        )


def _how_compared(found: Sequence[Verdict]) -> str:
    """Return a note that explains the differences, their intervals and their p-values."""
    by = f"{LEVEL:.0%} confidence interval over seeds"
    if any(verdict.comparison.items for verdict in found):
        by += " and test images"
    number = sum(verdict.corrected is not None for verdict in found)
    return (
        f"vs {BASELINE}: mean difference of runs with the same seed, with {by}; p is corrected "
        f"for {number} comparisons (Holm). # is the range of ranks that these comparisons "
        "allow. ± is the standard deviation over seeds."
    )


def _other_comparisons(found: Sequence[Verdict]) -> Iterator[str]:
    """Yield a line for each declared comparison with another method than the baseline."""
    for verdict in found:
        if verdict.second != BASELINE and verdict.word:
            difference = difference_text(*verdict.comparison[:3])
            yield (
                f"{verdict.first} vs {verdict.second}: {difference}, p "
                f"{p_text(verdict.corrected)}: {verdict.word}."
            )


def data_set_of(record: Record) -> str:
    """Return the name of the data set whose images a record tests, without its variants."""
    try:
        card = find("task", record.task.name)
        if card.declared.evaluates:
            card = find("task", card.declared.evaluates)
    except MixbenchError:  # the task of a plugin that is not installed
        return record.data.name
    data = card.declared.data
    return data.shares_folder_with or (record.data.name if data.own else data.name)


def _trivial_baseline_notes(
    first: Record, rows: pd.DataFrame, trivial_baselines: Mapping[str, float]
) -> Iterator[str]:
    """Yield a note for each trivial baseline that is better than some methods."""
    sign = 1 if first.primary.higher_is_better else -1
    for name, value in trivial_baselines.items():
        worse = rows["method"][sign * rows["mean"] < sign * value]
        if len(worse):
            yield f"Worse than the trivial baseline {name}: {', '.join(worse)}."
