"""Which pictures a finished cell has, and where they are written."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mixbench.figures.mixes import example_mixes
from mixbench.figures.search import combinations, evolution, mutations
from mixbench.leaderboard.board import method_label
from mixbench.records.schema import Record
from mixbench.store import Store

DPI = 160


def draw_cells(store: Store, records: Iterable[Record]) -> Iterator[Path]:
    """Draw every method on every task once, at its lowest seed; yield the files one by one."""
    chosen: dict[tuple[str, str, str, str], Record] = {}
    for record in sorted(records, key=lambda r: r.seed):
        if record.status == "ok":
            row = (record.task.name, record.model, record.protocol, method_label(record))
            chosen.setdefault(row, record)
    for row, record in chosen.items():
        folder = store.root / "figures" / ".".join(row[:3]) / row[3].replace("/", "_")
        for name, figure in _pictures(store, record):
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{name}.png"
            FigureCanvasAgg(figure)
            figure.savefig(path, dpi=DPI)
            yield path


def _pictures(store: Store, record: Record) -> Iterator[tuple[str, Figure]]:
    """Yield the pictures of one cell by their names."""
    train = next(s.key for s in record.stages if s.kind == "train" and s.own)
    yield "mixes", example_mixes(store, train)
    for artifact in record.artifacts:
        if artifact.role == "search":
            result = json.loads((store.root / artifact.path).read_text(encoding="utf-8"))
            drawn = {
                "evolution": evolution(result),
                "combinations": combinations(result),
                "mutations": mutations(result, record.seed),
            }
            yield from ((name, figure) for name, figure in drawn.items() if figure is not None)
