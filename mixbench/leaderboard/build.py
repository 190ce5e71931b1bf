"""Generate the pages and tables of a suite from its records; the output is deterministic."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from mixbench.declare import BASELINE
from mixbench.errors import Damaged
from mixbench.leaderboard.formats import to_csv, to_json, to_latex, to_markdown
from mixbench.leaderboard.overall import overall
from mixbench.leaderboard.overall import to_markdown as overall_markdown
from mixbench.leaderboard.rows import Row
from mixbench.leaderboard.suite import FILE, Published, Suite, read_suite
from mixbench.leaderboard.table import SELF_REPORTED, Leaderboard, Tiers, leaderboards
from mixbench.records.schema import Artifact, Record, parse
from mixbench.storage.files import write_bytes

RECORDS, TIERS_FILE, ARTIFACTS, FIGURES = "records", "verified.json", "artifacts", "figures"


@dataclass(frozen=True)
class Answered:
    """A suite with its records and their verification tiers.

    Attributes
    ----------
    name
        Name of the suite.
    suite
        Content of suite.toml.
    records
        Records of the suite, by the path of their file.
    tiers
        Verification tier of each verified record, by digest.
    """

    name: str
    suite: Suite
    records: dict[Path, Record]
    tiers: Tiers

    @cached_property
    def compared(self) -> Sequence[Record]:
        """The records, prepared for comparison by `Suite.compared`."""
        return self.suite.compared([*self.records.values()])

    @cached_property
    def boards(self) -> list[Leaderboard]:
        """The leaderboards of the records; computed once."""
        tiers = {digest: self.tiers.get(record.digest, SELF_REPORTED)
                 for digest, record in self.as_recorded.items()}  # fmt: skip
        return leaderboards(self.compared, tiers, self.suite.rule)

    @cached_property
    def as_recorded(self) -> dict[str, Record]:
        """The original records, by the digests of the records prepared for comparison."""
        pairs = zip(self.compared, self.records.values(), strict=True)
        return {compared.digest: record for compared, record in pairs}


def read_answers(folder: Path) -> Answered:
    """Read the suite of a folder, its records and their verification tiers.

    Raises
    ------
    UsageError
        If suite.toml is not valid.
    Damaged
        If a record or verified.json is not valid.
    """
    suite = read_suite(folder)
    records = {
        path: parse(path.read_text(encoding="utf-8", errors="replace"), str(path))
        for path in record_files(folder)
    }
    return Answered(folder.resolve().name, suite, records, read_tiers(folder))


def record_files(folder: Path) -> list[Path]:
    """Return the paths of a suite's records, sorted."""
    return sorted((folder / RECORDS).rglob("*.json"))


def read_tiers(folder: Path) -> dict[str, str]:
    """Read the verification tiers of a suite's records, by the records' digests.

    Raises
    ------
    Damaged
        If verified.json is not valid.
    """
    path = folder / TIERS_FILE
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {str(digest): str(tier) for digest, tier in found.items()}
    except (ValueError, AttributeError) as error:
        raise Damaged(f"{path} must be a JSON object of tiers by digest ({error}).") from error


def artifact_path(folder: Path, artifact: Artifact) -> Path:
    """Return the path in a suite's folder for an artifact of a record; it need not exist."""
    return folder / ARTIFACTS / f"{artifact.sha256[:16]}{Path(artifact.path).suffix}"


def files_of(answered: Answered) -> dict[str, str]:
    """Return the content of a suite's generated files, by file name."""
    boards = answered.boards
    return {
        "README.md": _readme(answered, boards),
        "leaderboard.csv": to_csv(boards),
        "leaderboard.json": to_json(boards),
        "leaderboard.tex": to_latex(boards),
    }


def build(folder: Path) -> list[Path]:
    """Write a suite's generated files; return the paths of those that changed."""
    changed = stale(folder)
    for path, text in changed.items():
        write_bytes(path, text.encode())
    return list(changed)


def stale(folder: Path) -> dict[Path, str]:
    """Return the new content of those generated files of a suite that are out of date."""
    return {
        folder / name: text
        for name, text in files_of(read_answers(folder)).items()
        if not (folder / name).exists() or (folder / name).read_bytes() != text.encode()
    }


def _readme(answered: Answered, boards: list[Leaderboard]) -> str:
    suite, number = answered.suite, len(answered.records)
    parts = [
        f"# {answered.name}",
        suite.question,
        *([f"Reproduces {suite.where}."] if suite.where else []),
        f"    mixbench run --suite {answered.name}        # reproduce the results\n"
        f"    mixbench leaderboard build {answered.name}  # write this page from {RECORDS}/",
        rule_text(suite),
        *answers(boards),
        *([suite.remark] if suite.remark else []),
    ]
    if boards:
        parts += [to_markdown(boards).rstrip()]
    if (found := overall(boards)) is not None:
        parts += [overall_markdown(found)]
    if table := published_table(suite, boards):
        texts = pd.DataFrame(table).to_markdown(index=False, disable_numparse=True)
        parts += ["## Published results", str(texts)]
    parts += [f"Generated from {number} records and [{FILE}]({FILE}). Do not edit this file."]
    return "\n\n".join(parts) + "\n"


def rule_text(suite: Suite) -> str:
    """Return which methods a suite compares, and when one is better or worse, as Markdown."""
    margin = f" and the difference at least {suite.better.margin:g}" if suite.better.margin else ""
    compared = "; ".join(
        f"{', '.join(one.methods) or 'each method'} with {', '.join(one.others)}"
        for one in suite.compare
    )
    return (
        f"Compared: {compared}. A method is *better* or *worse* if p, with Holm's correction over "
        f"these comparisons, is at most {suite.better.alpha:g}{margin}; otherwise it is "
        f"*undecided*. {suite.seeds} seed{'s' if suite.seeds > 1 else ''}."
    )


WORDS = {"better": "better than", "worse": "worse than", "undecided": "undecided against"}


def answers(boards: Iterable[Leaderboard]) -> Iterator[str]:
    """Yield a sentence for each leaderboard that lists better, worse and undecided methods."""
    for board in boards:
        found: dict[str, list[str]] = {"better": [], "worse": [], "undecided": []}
        for row in board.rows.to_dict("records"):
            if row["verdict"]:
                found[row["verdict"]].append(row["method"])
        texts = [f"{word}: {', '.join(names)}" for word, names in found.items() if names]
        texts += [
            f"{verdict.first} {WORDS[verdict.word]} {verdict.second}"
            for verdict in board.comparisons
            if verdict.word and verdict.second != BASELINE
        ]
        said = "; ".join(texts)
        if said:
            yield f"**{board.title}**: {said}."


def published_table(suite: Suite, boards: Iterable[Leaderboard]) -> list[dict[str, str]]:
    """Return the published results of a suite, with the measured results next to them.

    Measured results are included only for official data and the protocol ``paper``.
    """
    measured = {
        (board.task, board.model, row["method"]): row
        for board in boards
        if board.comparable
        for row in board.rows.to_dict("records")
    }
    return [
        {
            "task": number.task,
            "model": number.model,
            "method": number.method,
            "metric": number.metric,
            "published": number.text,
            "measured": _beside(number, measured.get((number.task, number.model, number.method))),
            "where": number.where,
        }
        for number in suite.numbers()
    ]


def _beside(number: Published, row: Row | None) -> str:
    """Format the measured result for a published one; empty if there is none."""
    if row is None:
        return ""
    value = row["mean"] if number.metric not in row else row[number.metric]
    return f"{value:.2f}"
