"""Verify the records of a suite: list errors and assign each record a verification tier.

There are three tiers. `self-reported`: the record is valid. `metrics recomputed`: the predictions
are stored with the record, and give its metrics when scored against the true targets. `rerun`: an
independent run of the same cell gave the same result.
"""

import json
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mixbench.errors import Damaged, MixbenchError, UnknownName, UsageError
from mixbench.leaderboard.build import (
    RECORDS,
    TIERS_FILE,
    artifact_path,
    read_tiers,
    record_files,
)
from mixbench.leaderboard.grouping import group_key, method_label
from mixbench.leaderboard.rescoring import predictions_of, read_predictions, scored, true_targets
from mixbench.leaderboard.suite import Suite, read_suite
from mixbench.leaderboard.table import SELF_REPORTED, TIERS
from mixbench.records.migration import digest_of, migrated, migrated_path
from mixbench.records.schema import Record, UnitRecord, parse
from mixbench.registry.modules import Kind
from mixbench.registry.units import find
from mixbench.storage.files import write_json

if TYPE_CHECKING:
    from torch import Tensor

PERCENT = "%"
CLOSE = 1e-6  # tolerance for recomputed metrics


Run = tuple[str, str, int]  # comparison group, method, seed
Question = str  # task, model, recipe, method, seed and data, as JSON
Wrong = tuple[str, str]  # the field, and its error


class Finding(NamedTuple):
    """An error in a record: the file, the field, and the error message."""

    path: Path
    field: str
    what: str

    def __str__(self) -> str:
        return f"{self.path}: {self.field}: {self.what}"


class Checked(NamedTuple):
    """The result of a verification: errors, and the tier of each valid record by digest."""

    findings: list[Finding]
    tiers: dict[str, str]


def verify(folder: Path, *, base: str | None = None, reruns: Iterable[Record] = ()) -> Checked:
    """Verify all records of a suite.

    Parameters
    ----------
    folder
        Folder of the suite.
    base
        Git commit to compare with. Its records must still exist unchanged, and earlier tiers are
        read from the verified.json of this commit.
    reruns
        Records of independent runs of the same cells.

    Raises
    ------
    UsageError
        If suite.toml is not valid, or the commit is unknown.
    """
    suite = read_suite(folder)
    history = _history(folder, base) if base else History([], read_tiers(folder))
    findings: list[Finding] = []
    seen: dict[Run, Path] = {}
    answered: set[Question] = set()
    tiers: dict[str, str] = {}
    again = {_run(record): record for record in reruns if record.status == "ok"}
    for path in record_files(folder):
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
            record = parse(text, str(path))
        except Damaged as error:
            findings.append(Finding(path, "record", str(error).removeprefix(f"{path} ")))
            continue
        wrong = [*_objections(suite, record, path, text)]
        if (first := seen.setdefault(_run(record), path)) != path:
            wrong.append(("file", f"is a record of the same cell as {first}"))
        if not wrong:
            tier, wrong = _tier(
                folder, record, again, history.tiers.get(record.digest, SELF_REPORTED)
            )
            tiers[record.digest] = tier
            if record.status == "ok":
                answered.add(_question(record))
        findings += [Finding(path, field, what) for field, what in wrong]
    findings += [finding for finding, question in history.missing if question not in answered]
    findings += [
        Finding(folder / TIERS_FILE, digest, f"claims {tier!r}, which this check did not confirm")
        for digest, tier in read_tiers(folder).items()
        if base and tier not in TIERS[: TIERS.index(tiers.get(digest, SELF_REPORTED)) + 1]
    ]
    return Checked(findings, tiers)


def note_tiers(folder: Path, tiers: Mapping[str, str]) -> None:
    """Write the tiers of records above ``self-reported`` to verified.json."""
    known = {digest: tier for digest, tier in sorted(tiers.items()) if tier != SELF_REPORTED}
    if known or (folder / TIERS_FILE).exists():
        write_json(folder / TIERS_FILE, known)


def _run(record: Record) -> Run:
    """Return the comparison group, method and seed of a record."""
    return group_key(record), method_label(record), record.seed


def _objections(suite: Suite, record: Record, path: Path, text: str) -> Iterator[Wrong]:
    """Yield the errors of a valid record that can be found without its artifacts."""
    if (folders := path.parts[-3:-1]) != (record.task.name, record.method.name):
        yield "path", f"must be in {record.task.name}/{record.method.name}/ (got {folders})"
    if text != record.written:
        yield "file", "differs from the text that mixbench writes: it was edited"
    if objection := suite.objection(record):
        yield "suite", objection
    yield from _versions(record)
    for number, metric in enumerate(record.metrics):
        field = f"metrics.{number}.value"
        if metric.unit == PERCENT and not 0 <= metric.value <= 100 and not metric.trivial_baseline:
            yield field, f"{metric.name} must be a percentage (got {metric.value:g})"
        if metric.items is not None:
            yield from _item_objections(metric.items.scores, metric.value, metric.n, field)


def _item_objections(scores: "np.ndarray", value: float, n: int, field: str) -> Iterator[Wrong]:
    if len(scores) != n:
        yield field, f"has {len(scores)} per-item scores, but n is {n}"
    elif not np.isclose(scores.mean(), value, rtol=CLOSE):
        yield field, f"must be the mean of its items, {scores.mean():.6g} (got {value:.6g})"


def _versions(record: Record) -> Iterator[Wrong]:
    """Yield where a record's method or task differs from the installed version."""
    units: tuple[tuple[Kind, UnitRecord], ...] = ("method", record.method), ("task", record.task)
    for kind, unit in units:
        try:
            card = find(kind, unit.name)
        except UnknownName as error:
            if unit.source == "builtin":
                yield f"{kind}.name", str(error)
            continue
        if unit.source == "builtin" and card.version != unit.version:
            yield (
                f"{kind}.version",
                f"must be {card.version}, the current version of {unit.name} (got {unit.version}); "
                "run the cell again",
            )
        unknown = unit.parameters.keys() - card.defaults.keys()
        if unit.source == "builtin" and unknown:
            yield f"{kind}.parameters", f"{unit.name} has no parameter {', '.join(sorted(unknown))}"


def _tier(
    folder: Path, record: Record, again: Mapping[Run, Record], known: str
) -> tuple[str, list[Wrong]]:
    """Return the tier of a record, reached now or in an earlier check, and its errors."""
    reached = known
    if record.status != "ok":
        return reached, []
    for tier, wrong in (
        (TIERS[1], _recomputed(folder, record)),
        (TIERS[2], _unlike(record, again.get(_run(record)))),
    ):
        if wrong:
            return SELF_REPORTED, wrong
        if wrong is not None:
            reached = max(reached, tier, key=TIERS.index)
    return reached, []


def _unlike(record: Record, other: Record | None) -> list[Wrong] | None:
    """Return an error if a rerun differs by more than hardware differences explain.

    The tolerance is two standard errors, and at least 0.5. Return None if there is no rerun.
    """
    if other is None or other.created == record.created:
        return None
    one, two = record.primary, other.primary
    if abs(one.value - two.value) <= max(2 * (one.stderr or 0.0), 0.5):
        return []
    said = f"{one.name} is {two.value:.4g} in the rerun (got {one.value:.4g})"
    return [("metrics", said)]


def _recomputed(folder: Path, record: Record) -> list[Wrong] | None:
    """Return the metrics that differ from those recomputed from the stored predictions.

    Return None if the predictions or the true targets are not available.
    """
    artifact = predictions_of(record)
    path = artifact_path(folder, artifact) if artifact else None
    if path is None or not path.exists():
        return None
    try:
        predictions, targets = read_predictions(record, path), true_targets(record)
    except MixbenchError as error:
        return [("artifacts", str(error))]
    return None if targets is None else _other_numbers(record, predictions, targets)


def _other_numbers(
    record: Record, predictions: "dict[str, Tensor]", targets: "Tensor"
) -> list[Wrong]:
    """Return the metrics that differ when the predictions are scored on the true targets."""
    if not predictions["targets"].equal(targets):
        return [("artifacts", "the targets in the predictions file differ from those of the data")]
    anew = {metric.name: metric.value for metric in scored(record, predictions)}
    return [
        (f"metrics.{number}.value", f"the predictions give {anew[m.name]:.6g} (got {m.value:.6g})")
        for number, m in enumerate(record.metrics)
        if m.at == "last" and not np.isclose(m.value, anew[m.name], rtol=CLOSE, atol=CLOSE)
    ]


class History(NamedTuple):
    """The records of a suite in an earlier commit, compared with the working tree.

    Attributes
    ----------
    missing
        Records that were removed or changed, except by the migration to the current schema, each
        with the question that a valid record must answer in its place; None if none may. Only
        records of an outdated version may be replaced.
    tiers
        Verification tiers in the commit, by the current digests of the records.
    """

    missing: "list[tuple[Finding, Question | None]]"
    tiers: dict[str, str]


def _history(folder: Path, base: str) -> History:
    """Compare a suite's records with those of a commit.

    Raises
    ------
    UsageError
        If the commit is unknown.
    """
    done = _git(folder, "diff", "--no-renames", "--name-status", "--relative", base, "--", RECORDS)
    if done.returncode:
        raise UsageError(f"--base {base}: {' '.join(done.stderr.split())}")
    missing: list[tuple[Finding, Question | None]] = []
    digests: dict[str, str] = {}
    for line in done.stdout.splitlines():
        status, _, name = line.partition("\t")
        if status == "A":
            continue
        path, before = folder / name, _git(folder, "show", f"{base}:./{name}").stdout
        after = _migration(before, path)
        here = migrated_path(path)
        if after and here.exists() and here.read_text(encoding="utf-8") == after:
            digests[digest_of(before)] = digest_of(after)
            continue
        word = "was removed" if status == "D" else "was changed"
        text = f"{word} since {base}: restore it, and submit a correction as a new record"
        missing.append((Finding(path, "file", text), _outdated(before, path)))
    shown = _git(folder, "show", f"{base}:./{TIERS_FILE}")
    tiers: dict[str, str] = json.loads(shown.stdout) if shown.returncode == 0 else {}
    return History(missing, {digests.get(old, old): tier for old, tier in tiers.items()})


def _outdated(before: str, path: Path) -> Question | None:
    """Return the question of a record whose method or task has a newer version now, else None."""
    try:
        record = parse(migrated(before, str(path)), str(path))
    except Damaged:
        return None
    outdated = any(field.endswith(".version") for field, _ in _versions(record))
    return _question(record) if outdated else None


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


def _git(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)
