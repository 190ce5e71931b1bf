"""Whether records may be believed: what is wrong with them, and how far each was checked.

Three tiers: `self-reported`, whatever is well-formed; `metrics recomputed`, where the predictions
lie beside the record and give its numbers against the true targets; `rerun`, where somebody else's
run of the same cell came to the same result.
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
CLOSE = 1e-6  # of recomputed numbers, relative


Run = tuple[str, str, int]  # question, method, seed
Wrong = tuple[str, str]  # the field, and what is wrong with it


class Finding(NamedTuple):
    """Something wrong: in which file, which field, and what."""

    path: Path
    field: str
    what: str

    def __str__(self) -> str:
        return f"{self.path}: {self.field}: {self.what}"


class Checked(NamedTuple):
    """What a verification came to: what is wrong, and every record's tier by its digest."""

    findings: list[Finding]
    tiers: dict[str, str]


def verify(folder: Path, *, base: str | None = None, reruns: Iterable[Record] = ()) -> Checked:
    """Check every record of a suite.

    Parameters
    ----------
    base
        A commit: records that it has must still be there, unchanged, and only what it says of who
        verified them is believed.
    reruns
        Records of somebody who ran cells again.

    Raises
    ------
    UsageError
        If the suite is none, or the commit is unknown.
    """
    suite = read_suite(folder)
    history = _history(folder, base) if base else History([], read_tiers(folder))
    findings = list(history.findings)
    seen: dict[Run, Path] = {}
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
            wrong.append(("the whole", f"answers the same cell as {first}"))
        if not wrong:
            tier, wrong = _tier(
                folder, record, again, history.tiers.get(record.digest, SELF_REPORTED)
            )
            tiers[record.digest] = tier
        findings += [Finding(path, field, what) for field, what in wrong]
    findings += [
        Finding(folder / TIERS_FILE, digest, f"claims {tier!r}, which this check does not reach")
        for digest, tier in read_tiers(folder).items()
        if base and tier not in TIERS[: TIERS.index(tiers.get(digest, SELF_REPORTED)) + 1]
    ]
    return Checked(findings, tiers)


def note_tiers(folder: Path, tiers: Mapping[str, str]) -> None:
    """Write down how far records were checked, of those that were at all."""
    known = {digest: tier for digest, tier in sorted(tiers.items()) if tier != SELF_REPORTED}
    if known or (folder / TIERS_FILE).exists():
        write_json(folder / TIERS_FILE, known)


def _run(record: Record) -> Run:
    """Return which run of which question a record is of."""
    return group_key(record), method_label(record), record.seed


def _objections(suite: Suite, record: Record, path: Path, text: str) -> Iterator[Wrong]:
    """Yield what is wrong with a well-formed record, as far as it alone can tell."""
    if (folders := path.parts[-3:-1]) != (record.task.name, record.method.name):
        yield "path", f"must lie in {record.task.name}/{record.method.name}/ (got {folders})"
    if text != record.written:
        yield "the whole", "is not written as mixbench writes records; it was edited"
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
        yield field, f"tells of {len(scores)} items, of {n}"
    elif not np.isclose(scores.mean(), value, rtol=CLOSE):
        yield field, f"must be the mean of its items, {scores.mean():.6g} (got {value:.6g})"


def _versions(record: Record) -> Iterator[Wrong]:
    """Yield where a record is of other units than are here."""
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
                f"must be {card.version}, the present one of {unit.name} (got {unit.version}); run "
                "the cell again",
            )
        unknown = unit.parameters.keys() - card.defaults.keys()
        if unit.source == "builtin" and unknown:
            yield f"{kind}.parameters", f"{unit.name} has no {', '.join(sorted(unknown))}"


def _tier(
    folder: Path, record: Record, again: Mapping[Run, Record], known: str
) -> tuple[str, list[Wrong]]:
    """Return how far a record was checked, now or before, and what is wrong with it."""
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
    """Return where a rerun came to something else, beyond what other machines' sums explain.

    None if nobody ran it again.
    """
    if other is None or other.created == record.created:
        return None
    one, two = record.primary, other.primary
    if abs(one.value - two.value) <= max(2 * (one.stderr or 0.0), 0.5):
        return []
    said = f"{one.name} was {two.value:.4g} when it was run again (got {one.value:.4g})"
    return [("metrics", said)]


def _recomputed(folder: Path, record: Record) -> list[Wrong] | None:
    """Return which numbers the predictions do not give.

    None where the predictions or the true targets are not here.
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
    """Return which of a record's numbers its predictions do not give, beside the true targets."""
    if not predictions["targets"].equal(targets):
        return [("artifacts", "the targets beside the predictions are not the data's")]
    anew = {metric.name: metric.value for metric in scored(record, predictions)}
    return [
        (f"metrics.{number}.value", f"the predictions give {anew[m.name]:.6g} (got {m.value:.6g})")
        for number, m in enumerate(record.metrics)
        if m.at == "last" and not np.isclose(m.value, anew[m.name], rtol=CLOSE, atol=CLOSE)
    ]


class History(NamedTuple):
    """What a commit says about a suite's records, compared with what is here.

    Attributes
    ----------
    findings
        Records that are gone or changed, otherwise than by the migration to the present schema.
    tiers
        How far the records were verified, by their present digests.
    """

    findings: list[Finding]
    tiers: dict[str, str]


def _history(folder: Path, base: str) -> History:
    """Return what a commit says about a suite's records.

    Raises
    ------
    UsageError
        If the commit is unknown.
    """
    done = _git(folder, "diff", "--no-renames", "--name-status", "--relative", base, "--", RECORDS)
    if done.returncode:
        raise UsageError(f"--base {base}: {' '.join(done.stderr.split())}")
    findings: list[Finding] = []
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
        word = "is gone" if status == "D" else "was changed"
        text = f"{word} since {base}: records are kept, and corrected by new ones"
        findings.append(Finding(path, "the whole", text))
    shown = _git(folder, "show", f"{base}:./{TIERS_FILE}")
    tiers: dict[str, str] = json.loads(shown.stdout) if shown.returncode == 0 else {}
    return History(findings, {digests.get(old, old): tier for old, tier in tiers.items()})


def _migration(before: str, path: Path) -> str:
    """Return the text of a record of an older schema in the present one; empty if it is none."""
    try:
        return parse(before, str(path)).written if migrated(before, str(path)) != before else ""
    except Damaged:
        return ""


def _git(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)
