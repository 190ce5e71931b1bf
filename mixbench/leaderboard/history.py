"""Compare a suite's folder with an earlier commit: what others have submitted stays as it is."""

import json
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mixbench.errors import Damaged, UsageError, one_line
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
from mixbench.leaderboard.suite import FILE, FOLDER, suites
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
        Artifacts that were removed or changed, and figures that were added too.
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
        path, top = folder / name, PurePosixPath(name).parts[0]
        word = {"D": "was removed", "A": "was added"}.get(status, "was changed") + f" since {base}"
        if top == FIGURES or (top == ARTIFACTS and status != "A"):
            files.append(Finding(path, "file", f"{word}: restore what was there"))
        if top != RECORDS or status == "A":
            continue
        before = _shown(folder, base, name)
        after, here = _migration(before, path), migrated_path(path)
        if after and here in evidence.records and evidence.records[here].written == after:
            digests[digest_of(before)] = digest_of(after)
            continue
        text = f"{word}: restore it, and submit a correction as a new record"
        lost.append((Finding(path, "file", text), _replaceable(before, path)))
    found = tiers_in(_shown(folder, base, TIERS_FILE) or "{}") or {}
    tiers = {digests.get(old, old): tier for old, tier in found.items() if tier in TIERS}
    new = {folder / name for name, status in changes.items() if status == "A"}
    added = [path for path in evidence.records if path in new]
    notes = [f"{folder / FILE} was changed since {base}: review it"] if FILE in changes else []
    return History(lost, files, tiers, added, notes)


def _changes(folder: Path, base: str) -> dict[str, str]:
    """Return the status of each file of a folder that differs from a commit, by relative path."""
    listed = _listed(folder, base, "diff", "--no-ext-diff", "--no-textconv", "--no-renames",
                     "--name-status", "-z", "--relative", base, "--", ".")  # fmt: skip
    words = listed.split("\0")[:-1]
    changes = dict(zip(words[1::2], words[::2], strict=True))
    untracked = git(folder, "ls-files", "-z", "--others", "--exclude-standard", "--", ".")
    return changes | dict.fromkeys(filter(None, untracked.stdout.split("\0")), "A")


def missing(evidence: Evidence, earlier: History) -> Iterator[Finding]:
    """Yield the files of the earlier commit that are missing and that nothing may replace."""
    good = {path: r for path, r in evidence.records.items() if r.status == "ok"}
    answered = {_question(record) for record in good.values()}
    yield from (finding for finding, question in earlier.lost if question not in answered)
    named = {artifact_path(evidence.folder, a) for r in good.values() for a in r.artifacts}
    added = [good[path] for path in earlier.added if path in good and path not in evidence.unasked]
    for finding in earlier.files:
        inside = finding.path.relative_to(evidence.folder)
        drawn = inside.parts[0] == FIGURES
        if (drawn and not _redrawn(inside, added)) or (not drawn and finding.path in named):
            yield finding
    current = {record.digest for record in evidence.records.values()}
    for digest in earlier.tiers.keys() & current:
        before, now = earlier.tiers[digest], evidence.tiers.get(digest, TIERS[0])
        if TIERS.index(now) < TIERS.index(before):
            yield Finding(evidence.folder / TIERS_FILE, digest, f"must still be {before!r}")


def missing_suites(base: str) -> Iterator[Finding]:
    """Yield the suites in the working folder that a commit has and the working tree has not."""
    if base == NOTHING_BEFORE:
        return
    listed = _listed(Path(), base, "ls-tree", "-r", "-z", "--name-only", base, f"./{FOLDER}")
    present = suites(here=True)
    for name in filter(None, listed.split("\0")):
        path = PurePosixPath(name)
        if path.name == FILE and len(path.parts) == 3 and path.parent.name not in present:
            yield Finding(Path(name), "suite", f"was removed since {base}: restore it")


def _redrawn(figure: Path, added: Iterable[Record]) -> bool:
    """Return whether a new record may have drawn a figure: of its row, or of its whole table."""
    rows = {(group_name(record), method_label(record).replace("/", "_")) for record in added}
    parts = figure.parts[1:]
    if len(parts) == 3:
        return (parts[0], parts[1]) in rows
    return bool(rows) if len(parts) == 1 else parts[0] in {group for group, _ in rows}


def _replaceable(before: str, path: Path) -> Question | None:
    """Return the question of a record that a valid one may replace, else None.

    Its method or task has a newer version now, or it has no result.
    """
    try:
        record = parse(migrated(before, str(path)), str(path))
    except Damaged:
        return None
    return _question(record) if outdated(record) or record.status != "ok" else None


def _question(record: Record) -> Question:
    """Return what a record answers, whatever a new version of its method and task changes."""
    base = record.base_task and record.base_task.name
    asked = [record.task.name, base, record.protocol, method_label(record), record.seed]
    return json.dumps(asked)


def _migration(before: str, path: Path) -> str:
    """Return the migrated text of a record of an older schema; empty for any other text."""
    try:
        return parse(before, str(path)).written if migrated(before, str(path)) != before else ""
    except Damaged:
        return ""


def _listed(folder: Path, base: str, *arguments: str) -> str:
    """Return what git lists in a folder.

    Raises
    ------
    UsageError
        If the folder is in no repository, or pretends to be one itself, or the commit is unknown.
    """
    both = [git(folder, *words) for words in (("rev-parse", "--git-dir"), arguments)]
    if failed := next((done for done in both if done.returncode), None):
        raise UsageError(f"--base {base}: {one_line(failed.stderr)}")
    return both[-1].stdout


def _shown(folder: Path, base: str, name: str) -> str:
    """Return the text of a file in a commit; empty if the commit does not have it."""
    done = git(folder, "show", f"{base}:./{name}")
    return done.stdout if done.returncode == 0 else ""


def git(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run git in a folder and return its output.

    A folder of a stranger may look like a repository of its own, whose settings name programs.
    """
    safe = ("-c", "safe.bareRepository=explicit", "-c", "core.fsmonitor=false")
    command = ["git", *safe, "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
