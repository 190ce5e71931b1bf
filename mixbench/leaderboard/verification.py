"""Verify the records of a suite: list errors and assign each record a verification tier.

There are three tiers. `self-reported`: the record is what its suite, method and task declare.
`consistent with submitted predictions`: the predictions are stored with the record, and all metrics
after the last epoch are computed again from them and the true targets. `rerun`: an independent run
of the same cell gave the same result. docs/trust.md says what each of them proves.
"""

import json
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from mixbench.datasets.locate import DataSource
from mixbench.errors import Damaged, MixbenchError, UsageError
from mixbench.leaderboard.admission import BUILTIN, Wrong, outdated, same_number
from mixbench.leaderboard.evidence import (
    ARTIFACTS,
    FIGURES,
    RECORDS,
    TIERS_FILE,
    Evidence,
    Finding,
    artifact_path,
    read_evidence,
    tier_of,
    tiers_in,
)
from mixbench.leaderboard.grouping import group_key, group_name, method_label
from mixbench.leaderboard.ranks import compared
from mixbench.leaderboard.rescoring import (
    located,
    predictions_of,
    recomputed,
)
from mixbench.leaderboard.suite import FILE
from mixbench.leaderboard.table import SELF_REPORTED, TIERS
from mixbench.records.migration import digest_of, migrated, migrated_path
from mixbench.records.schema import MetricRecord, Record, parse
from mixbench.storage.files import write_json
from mixbench.storage.spec import PUBLISHED

CONSISTENT, RERUN = TIERS[1:]
PERFECT = 100.0
LEAST_RERUNS = 3
NOTHING_BEFORE = "0" * 40  # what a forge names as the base of a first push

Row = tuple[str, str]  # comparison group and method
Question = str  # task, model, recipe, method, seed and data, as JSON


class Checked(NamedTuple):
    """The result of a verification.

    Attributes
    ----------
    findings
        Errors; the suite is refused if there are any.
    notes
        What a person should look at.
    tiers
        Tier of each valid record, by digest.
    """

    findings: list[Finding]
    notes: list[str]
    tiers: dict[str, str]


def verify(folder: Path, *, base: str | None = None, reruns: Iterable[Record] = ()) -> Checked:
    """Verify all files of a suite.

    Parameters
    ----------
    folder
        Folder of the suite.
    base
        Git commit to compare with. Its records, artifacts and figures must still exist unchanged,
        and earlier tiers are read from the verified.json of this commit. The commit of zeros that
        forges name before a first push means that there is nothing to compare with.
    reruns
        Records of independent runs of the same cells.

    Raises
    ------
    UsageError
        If suite.toml is not valid, or the commit is unknown.
    """
    evidence = read_evidence(folder)
    findings, notes = [*evidence.findings], []
    earlier = None if base is None or base == NOTHING_BEFORE else _history(evidence, base)
    known = evidence.tiers if earlier is None else earlier.tiers
    good = {path: record for path, record in evidence.records.items() if record.status == "ok"}
    doubtful = dict(_suspicious(good))
    agreeing = _agreeing(good.values(), [record for record in reruns if record.status == "ok"])
    tiers: dict[str, str] = {}
    for path, record in evidence.records.items():
        tier = tier_of(known, record)
        if record.status == "ok":
            wrong = _recomputed(folder, record)
            findings += [Finding(path, field, what) for field, what in wrong or ()]
            if wrong == [] and path not in doubtful:
                tier = max(tier, CONSISTENT, key=TIERS.index)
            agrees = agreeing.get(record.digest)
            if agrees is not None and agrees.wrong:
                findings.append(Finding(path, "metrics", agrees.wrong))
            elif agrees is not None and not wrong:
                tier = RERUN
        if record.method.source != BUILTIN:
            tier = SELF_REPORTED
        tiers[record.digest] = tier
    notes += [f"{path}: {why}" for path, why in doubtful.items()]
    if earlier is not None:
        findings += _missing(evidence, earlier)
        notes += earlier.notes
        findings += [
            Finding(folder / TIERS_FILE, digest, f"claims {tier!r}, which this did not confirm")
            for digest, tier in evidence.tiers.items()
            if TIERS.index(tier) > TIERS.index(tiers.get(digest, SELF_REPORTED))
        ]
    return Checked(findings, notes, tiers)


def note_tiers(folder: Path, tiers: Mapping[str, str]) -> None:
    """Write the tiers of records above ``self-reported`` to verified.json."""
    known = {digest: tier for digest, tier in sorted(tiers.items()) if tier != SELF_REPORTED}
    if known or (folder / TIERS_FILE).exists():
        write_json(folder / TIERS_FILE, known)


# --- Predictions ----------------------------------------------------------------------------------


def _recomputed(folder: Path, record: Record) -> list[Wrong] | None:
    """Return where data and metrics differ from the published data and the stored predictions.

    Return None if the published data or the predictions are not available.
    """
    source, artifact = located(record), predictions_of(record)
    if source is None or not {source.origin, record.data.origin} <= PUBLISHED:
        return None
    if source.digest != record.data.digest:
        return [Wrong("data.digest", f"must be {source.digest} for {record.data.origin} data")]
    path = artifact and artifact_path(folder, artifact)
    return _other_metrics(record, path, source) if path and path.exists() else None


def _other_metrics(record: Record, predictions: Path, source: DataSource) -> list[Wrong]:
    """Return the fields of metrics after the last epoch that predictions do not give."""
    try:
        anew = {metric.name: metric for metric in recomputed(record, predictions, source)}
    except MixbenchError as error:
        return [Wrong("artifacts", str(error))]
    return [
        Wrong(f"metrics.{number}.{field}", said)
        for number, metric in enumerate(record.metrics)
        if metric.at == "last"
        for field, said in _differences(metric, anew[metric.name])
    ]


def _differences(metric: MetricRecord, expected: MetricRecord) -> Iterator[tuple[str, str]]:
    """Yield the fields of a metric that differ from those computed again."""
    for field in ("value", "stderr"):
        one, other = getattr(metric, field), getattr(expected, field)
        if not same_number(one, other):
            yield field, f"the predictions give {other} (got {one})"
    by_class, other_classes = metric.by_class or {}, expected.by_class or {}
    if by_class.keys() != other_classes.keys() or not all(
        same_number(value, other_classes[name]) for name, value in by_class.items()
    ):
        yield "by_class", "is not what the predictions give"
    if metric.items != expected.items:
        yield "items", "are not what the predictions give"


def _suspicious(records: Mapping[Path, Record]) -> Iterator[tuple[Path, str]]:
    """Yield the records whose predictions prove nothing: perfect ones, or those of another."""
    first: dict[str, Path] = {}
    for path, record in records.items():
        artifact = predictions_of(record)
        perfect = record.primary.unit == "%" and record.primary.higher_is_better
        if perfect and record.primary.value == PERFECT:
            yield path, "is perfect, which predictions made of the public targets would be too"
        elif artifact and (other := first.setdefault(artifact.sha256, path)) != path:
            yield path, f"has the same predictions as {other}"


# --- Reruns ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Agreement:
    """Whether a record agrees with its rerun; `wrong` says by how much it does not."""

    wrong: str = ""


def _agreeing(records: Iterable[Record], reruns: Iterable[Record]) -> dict[str, Agreement]:
    """Return which records a rerun confirms or contradicts, by digest.

    A record is confirmed by a rerun that gives the same bits. Where the machines differ, it needs
    reruns of at least three seeds of its row: each difference to a rerun, and their mean, must be
    within the interval that the comparison of these reruns with each other has. Fewer reruns that
    differ decide nothing. No number of the submission enters the interval.
    """
    again: dict[Row, dict[int, Record]] = defaultdict(dict)
    for rerun in reruns:
        again[_row(rerun)].setdefault(rerun.seed, rerun)
    rows: dict[Row, dict[int, Record]] = defaultdict(dict)
    for record in records:
        other = again[_row(record)].get(record.seed)
        if other is not None and not _same_run(record, other):
            rows[_row(record)][record.seed] = record
    found: dict[str, Agreement] = {}
    for row, own in rows.items():
        unequal = {seed: one for seed, one in own.items() if not _same_bits(one, again[row][seed])}
        found |= {one.digest: Agreement() for seed, one in own.items() if seed not in unequal}
        if unequal and (judged := _within_interval(own, again[row])) is not None:
            found |= {one.digest: judged for one in unequal.values()}
    return found


def _row(record: Record) -> Row:
    return group_key(record), method_label(record)


def _same_run(record: Record, rerun: Record) -> bool:
    """Return whether a rerun is the very run that was submitted, which confirms nothing."""
    return [s.started for s in record.stages] == [s.started for s in rerun.stages]


def _same_bits(record: Record, rerun: Record) -> bool:
    """Return whether two runs have equal metrics at all points of training, items included."""
    one, other = predictions_of(record), predictions_of(rerun)
    equal = one is not None and other is not None and one.sha256 == other.sha256
    return equal and record.metrics == rerun.metrics


def _within_interval(own: Mapping[int, Record], again: Mapping[int, Record]) -> Agreement | None:
    """Judge the records of a row by reruns that have other bits; None if there are too few."""
    seeds = sorted(again)
    if len(seeds) < LEAST_RERUNS:
        return None
    shifted = {seed: again[seeds[place - 1]] for place, seed in enumerate(seeds)}
    between = compared(again, shifted)  # what two seeds differ by, which is no difference at all
    if between is None or between.low is None or between.high is None:
        return None
    of_mean = (between.high - between.low) / 2
    differences = [own[seed].primary.value - again[seed].primary.value for seed in own]
    of_one = of_mean * len(seeds) ** 0.5
    mean = sum(differences) / len(differences)
    largest = max(differences, key=abs)
    if abs(mean) <= of_mean * (len(seeds) / len(own)) ** 0.5 and abs(largest) <= of_one:
        return Agreement()
    return Agreement(
        f"differs from {len(own)} reruns by {mean:+.4g} in the mean and {largest:+.4g} at most; "
        f"reruns differ by {of_mean:.4g} in the mean and {of_one:.4g}"
    )


# --- History --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class History:
    """The files of a suite that an earlier commit had, compared with the working tree.

    Attributes
    ----------
    lost
        Records that were removed or changed, except by the migration to the current schema, each
        with the question that a valid record must answer in its place; None if none may. Only
        records of an outdated version may be replaced.
    files
        Artifacts and figures that were removed or changed.
    tiers
        Verification tiers in the commit, by the current digests of the records.
    before
        Paths of the records in the commit.
    notes
        What a person should look at.
    """

    lost: "list[tuple[Finding, Question | None]]"
    files: list[Finding]
    tiers: dict[str, str]
    before: frozenset[Path]
    notes: list[str]


def _history(evidence: Evidence, base: str) -> History:
    """Compare a suite's files with those of a commit.

    Raises
    ------
    UsageError
        If the commit is unknown.
    """
    folder = evidence.folder
    changes = _changes(folder, base)
    lost: list[tuple[Finding, Question | None]] = []
    files: list[Finding] = []
    digests: dict[str, str] = {}
    for name, status in changes.items():
        top = PurePosixPath(name).parts[0]
        if status == "A" or top not in {RECORDS, ARTIFACTS, FIGURES}:
            continue
        path = folder / name
        word = f"was {'removed' if status == 'D' else 'changed'} since {base}"
        if top != RECORDS:
            files.append(Finding(path, "file", f"{word}: restore it"))
            continue
        before = _shown(folder, base, name)
        after, here = _migration(before, path), migrated_path(path)
        if after and here in evidence.records and evidence.records[here].written == after:
            digests[digest_of(before)] = digest_of(after)
            continue
        text = f"{word}: restore it, and submit a correction as a new record"
        lost.append((Finding(path, "file", text), _outdated(before, path)))
    found = tiers_in(_shown(folder, base, TIERS_FILE) or "{}") or {}
    tiers = {digests.get(old, old): tier for old, tier in found.items() if tier in TIERS}
    new = {folder / name for name, status in changes.items() if status == "A"}
    before_ = frozenset(path for path in evidence.records if path not in new)
    notes = [f"{folder / FILE} was changed since {base}: review it"] if FILE in changes else []
    return History(lost, files, tiers, before_, notes)


def _changes(folder: Path, base: str) -> dict[str, str]:
    """Return the status of each file of a folder that differs from a commit, by relative path."""
    done = _git(
        folder, "diff", "--no-renames", "--name-status", "-z", "--relative", base, "--", "."
    )
    if done.returncode:
        raise UsageError(f"--base {base}: {' '.join(done.stderr.split())}")
    words = done.stdout.split("\0")[:-1]
    changes = dict(zip(words[1::2], words[::2], strict=True))
    untracked = _git(folder, "ls-files", "-z", "--others", "--exclude-standard", "--", ".")
    return changes | dict.fromkeys(filter(None, untracked.stdout.split("\0")), "A")


def _missing(evidence: Evidence, earlier: History) -> Iterator[Finding]:
    """Yield the files of the earlier commit that are missing and that nothing may replace."""
    good = [r for r in evidence.records.values() if r.status == "ok"]
    answered = {_question(record) for record in good}
    yield from (finding for finding, question in earlier.lost if question not in answered)
    named = {artifact_path(evidence.folder, a) for r in good for a in r.artifacts}
    added = [record for path, record in evidence.records.items() if path not in earlier.before]
    for finding in earlier.files:
        inside = finding.path.relative_to(evidence.folder)
        if (inside.parts[0] == ARTIFACTS and finding.path in named) or (
            inside.parts[0] == FIGURES and not _redrawn(inside, added)
        ):
            yield finding


def _redrawn(figure: Path, added: Iterable[Record]) -> bool:
    """Return whether a new record may have redrawn a figure: of its row, or of its whole table."""
    rows = {(group_name(record), method_label(record)) for record in added}
    parts = figure.parts[1:]
    if len(parts) == 3:
        return (parts[0], parts[1]) in rows
    return any(parts[0].startswith(group) or len(parts) == 1 for group, _ in rows)


def _outdated(before: str, path: Path) -> Question | None:
    """Return the question of a record whose method or task has a newer version now, else None."""
    try:
        record = parse(migrated(before, str(path)), str(path))
    except Damaged:
        return None
    return _question(record) if outdated(record) else None


def _question(record: Record) -> Question:
    """Return what a record answers, whatever the versions of its method and task."""
    units = [unit for unit in (record.task, record.base_task) if unit is not None]
    changed = [[unit.name, {n: unit.parameters.get(n) for n in unit.changed}] for unit in units]
    asked: list[object] = [changed, record.model, record.protocol, record.recipe]
    asked += [method_label(record), record.seed, record.data.digest]
    asked += [record.tuning and record.tuning.grid]
    return json.dumps(asked, sort_keys=True)


def _migration(before: str, path: Path) -> str:
    """Return the migrated text of a record of an older schema; empty for any other text."""
    try:
        return parse(before, str(path)).written if migrated(before, str(path)) != before else ""
    except Damaged:
        return ""


def _shown(folder: Path, base: str, name: str) -> str:
    """Return the text of a file in a commit; empty if the commit does not have it."""
    done = _git(folder, "show", f"{base}:./{name}")
    return done.stdout if done.returncode == 0 else ""


def _git(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
