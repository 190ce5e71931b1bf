"""Leaderboards of a store: read its records, write its tables."""

from collections.abc import Iterable
from pathlib import Path

from mixbench.leaderboard.board import Leaderboard, leaderboards
from mixbench.leaderboard.tables import to_csv, to_json, to_markdown
from mixbench.records.schema import Record, parse
from mixbench.store import Store, write_bytes


def read_records(store: Store) -> list[Record]:
    """Return every record of the store.

    Raises
    ------
    Damaged
        If one is not valid; the message names its file and the field.
    """
    files = store.record_files()
    return [parse(path.read_text(encoding="utf-8", errors="replace"), str(path)) for path in files]


def boards_about(known: Iterable[Record], records: Iterable[Record]) -> list[Leaderboard]:
    """Return the leaderboards of all known records in which one of the given takes part."""
    asked = {(r.task.name, r.model, r.protocol, r.data.digest) for r in records}
    about = [r for r in known if (r.task.name, r.model, r.protocol, r.data.digest) in asked]
    return leaderboards(about)


def write_reports(store: Store, known: Iterable[Record]) -> Path:
    """Write the leaderboards of all known records as Markdown, CSV and JSON; return where."""
    boards = leaderboards(known)
    folder = store.root / "leaderboards"
    for name, text in (
        ("leaderboards.md", to_markdown(boards)),
        ("leaderboards.csv", to_csv(boards)),
        ("leaderboards.json", to_json(boards)),
    ):
        write_bytes(folder / name, text.encode())
    return folder
