"""Compare a suite's folder with an earlier commit: what others have submitted stays as it is."""

import json
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mixbench.errors import Damaged, UsageError
from mixbench.leaderboard.admission import outdated
from mixbench.leaderboard.evidence import (
    ARTIFACTS,
    FIGURES,
    RECORDS,
    TIERS_FILE,
    Evidence,
    Finding,
    artifact_path,
    tiers_in,
)
from mixbench.leaderboard.grouping import group_name, method_label
from mixbench.leaderboard.suite import FILE
from mixbench.leaderboard.table import TIERS
from mixbench.records.migration import digest_of, migrated, migrated_path
from mixbench.records.schema import Record, parse

NOTHING_BEFORE = "0" * 40  # what a forge names as the base of a first push
Question = str  # task, model, recipe, method, seed and data, as JSON


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
    added
        Paths of the records that the commit does not have.
    notes
        What a person should look at.
    """

    lost: "list[tuple[Finding, Question | None]]"
    files: list[Finding]
    tiers: dict[str, str]
    added: list[Path]
    notes: list[str]


def history(evidence: Evidence, base: str) -> History:
    """Compare a suite's files with those of a commit.

    Parameters
    ----------
    evidence
        The suite's folder.
    base
        The commit. The commit of zeros that forges name before a first push has no files.

    Raises
    ------
    UsageError
        If the commit is unknown.
    """
    folder = evidence.folder
    if base == NOTHING_BEFORE:
        return History([], [], dict(evidence.tiers), [], [])
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
    added = [path for path in evidence.records if path in new]
    notes = [f"{folder / FILE} was changed since {base}: review it"] if FILE in changes else []
    return History(lost, files, tiers, added, notes)


def _changes(folder: Path, base: str) -> dict[str, str]:
    """Return the status of each file of a folder that differs from a commit, by relative path."""
    done = git(folder, "diff", "--no-renames", "--name-status", "-z", "--relative", base, "--", ".")
    if done.returncode:
        raise UsageError(f"--base {base}: {' '.join(done.stderr.split())}")
    words = done.stdout.split("\0")[:-1]
    changes = dict(zip(words[1::2], words[::2], strict=True))
    untracked = git(folder, "ls-files", "-z", "--others", "--exclude-standard", "--", ".")
    return changes | dict.fromkeys(filter(None, untracked.stdout.split("\0")), "A")


def missing(evidence: Evidence, earlier: History) -> Iterator[Finding]:
    """Yield the files of the earlier commit that are missing and that nothing may replace."""
    good = [r for r in evidence.records.values() if r.status == "ok"]
    answered = {_question(record) for record in good}
    yield from (finding for finding, question in earlier.lost if question not in answered)
    named = {artifact_path(evidence.folder, a) for r in good for a in r.artifacts}
    added = [evidence.records[path] for path in earlier.added]
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
    done = git(folder, "show", f"{base}:./{name}")
    return done.stdout if done.returncode == 0 else ""


def git(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run git in a folder and return its output."""
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
