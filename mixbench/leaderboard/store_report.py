"""Read the records of a store and write its leaderboards."""

from collections.abc import Callable, Iterable
from pathlib import Path

from mixbench.errors import Damaged
from mixbench.leaderboard.formats import to_csv, to_json, to_markdown
from mixbench.leaderboard.grouping import without_rescored
from mixbench.leaderboard.table import leaderboards
from mixbench.records.schema import Record, parse
from mixbench.storage.files import write_bytes
from mixbench.storage.store import Store


def read_records(
    store: Store, *, artifacts: bool = True, skip: Callable[[str], None] | None = None
) -> list[Record]:
    """Read all records of a store, without the originals of those that were scored again.

    Parameters
    ----------
    store
        Store to read.
    artifacts
        Whether to keep the records' artifacts. They take a quarter of the memory, and tables do not
        need them.
    skip
        Function that is told which record cannot be read and why; by default, one raises an error.

    Raises
    ------
    Damaged
        If a record is not valid; the message names its file and the invalid field.
    """
    found = filter(None, (_read(path, skip) for path in store.record_files()))
    return [
        record if artifacts else record.model_copy(update={"artifacts": []})
        for record in without_rescored(found)
    ]


def _read(path: Path, skip: Callable[[str], None] | None) -> Record | None:
    """Return a record; None if it cannot be read, which `skip` is told."""
    try:
        return parse(path.read_text(encoding="utf-8", errors="replace"), str(path))
    except (Damaged, OSError) as error:
        if skip is None:
            raise
        reason = f"{path} cannot be read ({error.strerror})." if isinstance(error, OSError) else ""
        skip(reason or str(error))
        return None


def write_reports(store: Store, known: Iterable[Record]) -> Path:
    """Write the leaderboards of records as Markdown, CSV and JSON; return their folder."""
    boards = leaderboards(known)
    folder = store.root / "leaderboards"
    for name, text in (
        ("leaderboards.md", to_markdown(boards)),
        ("leaderboards.csv", to_csv(boards)),
        ("leaderboards.json", to_json(boards)),
    ):
        write_bytes(folder / name, text.encode())
    return folder
