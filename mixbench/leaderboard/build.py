"""Generate the pages and tables of a suite from its records; the output is deterministic."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pandas as pd

from mixbench.declare import BASELINE
from mixbench.errors import Damaged
from mixbench.leaderboard.admission import BUILTIN, older_code
from mixbench.leaderboard.evidence import RECORDS, Evidence, read_evidence, tier_of
from mixbench.leaderboard.formats import in_markdown, to_csv, to_json, to_latex, to_markdown
from mixbench.leaderboard.grouping import method_label
from mixbench.leaderboard.overall import overall
from mixbench.leaderboard.overall import to_markdown as overall_markdown
from mixbench.leaderboard.ranks import Rule
from mixbench.leaderboard.rows import Row
from mixbench.leaderboard.suite import FILE, Published, Suite
from mixbench.leaderboard.table import TIERS, Leaderboard, Submitted, leaderboards
from mixbench.records.schema import Record
from mixbench.storage.files import write_bytes

UNASKED = "Rows that the suite does not ask for"
APART = (
    "Nobody has run these rows again: they are in no comparison and have no rank. Rows of methods "
    "that mixbench has enter the tables above when `mixbench verify --against` confirms them."
)


@dataclass(frozen=True)
class Answered:
    """The answers of a suite: its records, prepared for comparison.

    Attributes
    ----------
    evidence
        The suite's folder, without findings.
    """

    evidence: Evidence

    @property
    def name(self) -> str:
        """Name of the suite."""
        return self.evidence.name

    @property
    def suite(self) -> Suite:
        """Content of suite.toml."""
        return self.evidence.suite

    @property
    def records(self) -> Mapping[Path, Record]:
        """All records, by the path of their file."""
        return self.evidence.records

    @cached_property
    def compared(self) -> Sequence[Record]:
        """The records of the suite's rows, as declared and prepared by `Suite.compared`.

        Rows that the suite does not ask for are among them once they have been rerun.
        """
        return self._prepared(self._ranked)

    @cached_property
    def beside(self) -> Sequence[Record]:
        """The records of rows that the suite does not ask for and nobody has rerun."""
        return self._prepared(self._apart)

    @cached_property
    def _ranked(self) -> list[Path]:
        apart = frozenset(self._apart)
        return [path for path in self.records if path not in apart]

    @cached_property
    def _apart(self) -> list[Path]:
        tiers, records = self.evidence.tiers, self.records
        return [path for path in sorted(self.evidence.unasked)
                if tier_of(tiers, records[path]) != TIERS[-1]
                or records[path].method.source != BUILTIN]  # fmt: skip

    @cached_property
    def boards(self) -> list[Leaderboard]:
        """The leaderboards of the suite's rows; computed once."""
        return leaderboards(self.compared, self._submitted, self._rule)

    @property
    def _rule(self) -> Rule:
        """The suite's rule, whose comparisons are between rows that the suite asks for."""
        unasked = self.evidence.unasked
        asked = [record for path, record in self.records.items() if path not in unasked]
        labels = frozenset(map(method_label, self.suite.compared(asked)))
        return replace(self.suite.rule, among=labels)

    @cached_property
    def boards_beside(self) -> list[Leaderboard]:
        """The leaderboards of rows that the suite does not ask for, without any comparison."""
        return leaderboards(self.beside, self._submitted, Rule(pairings=()))

    @cached_property
    def as_submitted(self) -> dict[str, Record]:
        """The records as they were submitted, by the digests of those prepared for comparison."""
        pairs = zip([*self.compared, *self.beside], [*self._ranked, *self._apart], strict=True)
        return {prepared.digest: self.records[path] for prepared, path in pairs}

    def _prepared(self, paths: Iterable[Path]) -> Sequence[Record]:
        declared = (self.evidence.asked.as_declared(self.records[path]) for path in paths)
        return self.suite.compared([*declared])

    @cached_property
    def _submitted(self) -> Submitted:
        """What is known of the records, by the digests of those prepared for comparison."""
        originals = self.as_submitted.items()
        tiers = {digest: tier_of(self.evidence.tiers, one) for digest, one in originals}
        return Submitted(tiers, frozenset(digest for digest, one in originals if older_code(one)))


def read_answers(folder: Path) -> Answered:
    """Read the suite of a folder with its records.

    Raises
    ------
    UsageError
        If suite.toml is not valid.
    Damaged
        If a file in the folder is not valid, or a record not what its suite and task declare.
    """
    evidence = read_evidence(folder)
    if evidence.findings:
        first, *others = evidence.findings
        more = f" (and {len(others)} more findings)" if others else ""
        raise Damaged(f"{first}{more}: see `mixbench verify {folder.name}`.")
    return Answered(evidence)


def files_of(answered: Answered) -> dict[str, str]:
    """Return the content of a suite's generated files, by file name."""
    boards = answered.boards
    every = [*boards, *answered.boards_beside]
    files = {"README.md": _readme(answered, boards)}
    if every:
        files |= {
            "leaderboard.csv": to_csv(every),
            "leaderboard.json": to_json(every),
            "leaderboard.tex": to_latex(every),
        }
    return files


def build(folder: Path) -> list[Path]:
    """Write a suite's generated files; return the paths of those that changed."""
    changed = stale(folder)
    for path, text in changed.items():
        if text is None:
            path.unlink()
        else:
            write_bytes(path, text.encode())
    return list(changed)


def stale(folder: Path) -> dict[Path, str | None]:
    """Return the new content of those generated files of a suite that are out of date.

    The content of a file that is not to be there is None.
    """
    files = files_of(read_answers(folder))
    found = {folder / name: files.get(name) for name in TABLES}
    return {
        path: text
        for path, text in found.items()
        if (path.read_bytes().decode() if path.exists() else None) != text
    }


def _readme(answered: Answered, boards: list[Leaderboard]) -> str:
    suite, number = answered.suite, len(answered.records)
    parts = [
        f"# {answered.name}",
        in_markdown(suite.question),
        *([f"Reproduces {in_markdown(suite.where)}."] if suite.where else []),
        f"    mixbench run --suite {answered.name}        # reproduce the results\n"
        f"    mixbench leaderboard build {answered.name}  # write this page from {RECORDS}/",
        rule_text(answered),
        *(f"**{in_markdown(title)}**: {in_markdown(said)}." for title, said in answers(boards)),
        *([suite.remark.replace("<", "&lt;")] if suite.remark else []),
    ]
    if boards:
        parts += [to_markdown(boards).rstrip()]
    if (found := overall(boards)) is not None:
        parts += [overall_markdown(found)]
    if answered.boards_beside:
        parts += [f"## {UNASKED}", APART, to_markdown(answered.boards_beside).rstrip()]
    if table := published_table(suite, boards):
        escaped = pd.DataFrame(table).map(in_markdown)
        texts = escaped.to_markdown(index=False, disable_numparse=True)
        parts += ["## Published results", str(texts)]
    parts += [f"Generated from {number} records and [{FILE}]({FILE}). Do not edit this file."]
    return "\n\n".join(parts) + "\n"


def rule_text(answered: Answered) -> str:
    """Return which methods a suite compares, and when one is better or worse, as Markdown."""
    suite = answered.suite
    margin = f" and the difference at least {suite.better.margin:g}" if suite.better.margin else ""
    compared = "; ".join(
        f"{', '.join(one.methods) or 'each method'} with {', '.join(one.others)}"
        for one in suite.compare
    )
    return (
        f"Compared: {compared}. A method is *better* or *worse* if p, with Holm's correction over "
        f"these comparisons, is at most {suite.better.alpha:g}{margin}; otherwise it is "
        f"*undecided*. {suite.seeds} seed{'s' if suite.seeds > 1 else ''}{_so_far(answered)}."
    )


def _so_far(answered: Answered) -> str:
    """Return how many of the suite's seeds have run, if not all have."""
    fewest = min((int(n) for board in answered.boards for n in board.rows["n"]), default=0)
    return f" planned, {fewest} run so far" if fewest < answered.suite.seeds else ""


TABLES = ("README.md", "leaderboard.csv", "leaderboard.json", "leaderboard.tex")
AGAINST = {"better": "better than", "worse": "worse than", "undecided": "undecided against"}


def answers(boards: Iterable[Leaderboard]) -> Iterator[tuple[str, str]]:
    """Yield the title of each leaderboard, and which methods are better, worse and undecided."""
    for board in boards:
        said = [*_against_baseline(board), *_against_others(board)]
        if said:
            yield board.title, "; ".join(said)


def _against_baseline(board: Leaderboard) -> Iterator[str]:
    for word, against in AGAINST.items():
        methods = board.rows["method"][board.rows["verdict"] == word]
        if len(methods):
            yield f"{against} {BASELINE}: {', '.join(methods)}"


def _against_others(board: Leaderboard) -> Iterator[str]:
    others = [one for one in board.comparisons if one.word and one.second != BASELINE]
    for first in dict.fromkeys(one.first for one in others):
        for word, against in AGAINST.items():
            seconds = [o.second for o in others if (o.first, o.word) == (first, word)]
            if seconds:
                yield f"{first} {against} {', '.join(seconds)}"


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
