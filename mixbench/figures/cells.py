"""Selection of the figures of finished cells, and writing of their files."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from mixbench.figures.captions import captions
from mixbench.figures.detections import detections
from mixbench.figures.gains import drawn as gains_drawn
from mixbench.figures.gains import gains
from mixbench.figures.localization import accuracy_curves, located_of, overlays
from mixbench.figures.mixes import example_mixes
from mixbench.figures.patchmix.confusion import confusion_of_pairs
from mixbench.figures.patchmix.search import combinations, evolution, mutations
from mixbench.figures.predictions import names_of, predictions_of
from mixbench.figures.robustness import (
    adversaries,
    attack_curves,
    corruption_curves,
    under_attacks,
    under_corruptions,
)
from mixbench.figures.style import FOR_PAPERS, QUIET, save
from mixbench.leaderboard.grouping import (
    comparison_groups,
    group_name,
    method_label,
    representative,
    trial,
)
from mixbench.records.schema import Record
from mixbench.storage.store import Store


def draw_cells(
    store: Store,
    records: Iterable[Record],
    out: Path | None = None,
    suffixes: Sequence[str] = FOR_PAPERS,
) -> Iterator[Path]:
    """Draw every method on every task once, at its lowest seed, and the methods side by side.

    The table of the confusion of found class pairs has all seeds. A line below each figure says
    what was drawn: the data, what makes the run a trial, and the seeds.

    Parameters
    ----------
    store
        Store with the artifacts of the cells.
    records
        Records of the cells to draw.
    out
        Output folder; by default, the folder ``figures`` of the store.
    suffixes
        Suffixes of the files of each figure.

    Yields
    ------
    path
        Path of each file, after it is written.
    """
    records, root = list(records), out or store.root / "figures"
    for name, drawn, own in _of_all_seeds(store, records):
        yield from _write(drawn, root / name, own, suffixes)
    for group, methods in first_runs(records).items():
        folder = root / group
        for method, record in methods.items():
            for name, figure in _pictures(store, record):
                yield from _write(
                    figure, folder / method.replace("/", "_") / name, [record], suffixes
                )
        last = max(methods.values(), key=lambda record: record.created)
        same = {name: record for name, record in methods.items() if record.data == last.data}
        for name, drawn in _side_by_side(store, last, same):
            yield from _write(drawn, folder / name, [*same.values()], suffixes)


def _of_all_seeds(
    store: Store, records: Sequence[Record]
) -> Iterator[tuple[str, Figure | pd.DataFrame, Sequence[Record]]]:
    """Yield what is drawn from runs of all seeds, with its name and these runs."""
    for name, table, own in gains(records):
        for drawn in (table, gains_drawn(table)):
            yield f"{name}.gains", drawn, own
    for group in comparison_groups(records):
        confused = confusion_of_pairs(store, group)
        if len(confused):
            yield f"{group_name(representative(group))}/confusion_of_pairs", confused, group


def first_runs(records: Iterable[Record]) -> dict[str, dict[str, Record]]:
    """Return every method's finished run with the lowest seed, by comparison group."""
    chosen: dict[str, dict[str, Record]] = defaultdict(dict)
    for record in sorted(records, key=lambda r: r.seed):
        if record.status == "ok":
            chosen[group_name(record)].setdefault(method_label(record), record)
    return chosen


def _write(
    drawn: Figure | pd.DataFrame, path: Path, records: Sequence[Record], suffixes: Sequence[str]
) -> list[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(drawn, pd.DataFrame):
        path = path.with_name(f"{path.name}.csv")
        drawn.to_csv(path, index=False, lineterminator="\n")
        return [path]
    drawn.supxlabel(drawn_of(records), x=0.01, ha="left", fontsize=7, color=QUIET)
    return save(drawn, path, suffixes)


def drawn_of(records: Sequence[Record]) -> str:
    """Return what a figure of records is drawn of: the data, what makes it a trial, and seeds."""
    data = {
        f"{r.data.name} ({'generated' if r.data.origin == 'synthetic' else r.data.origin})"
        for r in records
    }
    trials = {f"trial with {part}" for r in records for part in trial(r)}
    seeds = sorted({r.seed for r in records})
    without_gaps = seeds[-1] - seeds[0] == len(seeds) - 1
    numbers = ", ".join(map(str, seeds))
    if len(seeds) > 4 and without_gaps:
        numbers = f"{seeds[0]} to {seeds[-1]}"
    seed = f"seed{'s' if len(seeds) > 1 else ''} {numbers}"
    return " · ".join(["data: " + ", ".join(sorted(data)), *sorted(trials), seed])


def _side_by_side(
    store: Store, last: Record, methods: Mapping[str, Record]
) -> Iterator[tuple[str, Figure | pd.DataFrame]]:
    """Yield the figures that compare runs of methods on the same data, with their names.

    The images are those of the run `last`. A figure of curves comes with a table of the points on
    the curves.
    """
    found = {name: predictions_of(store, record) for name, record in methods.items()}
    kinds = next(iter(found.values())).keys()
    if "maps" in kinds:
        located = {name: located_of(tensors) for name, tensors in found.items()}
        yield "overlays", overlays(store, last, located)
        yield "box_accuracy", accuracy_curves(located)
    if "boxes" in kinds:
        yield "detections", detections(store, last, found)
    if "captions" in kinds:
        yield "captions", captions(store, last, found)
    if "attacked" in kinds:
        rows = under_attacks(last, found)
        yield from (("robustness", rows), ("robustness", attack_curves(rows)))
    if "corrupted" in kinds:
        rows = under_corruptions(found, names_of(store, last))
        yield from (("robustness", rows), ("robustness", corruption_curves(rows)))


def _pictures(store: Store, record: Record) -> Iterator[tuple[str, Figure]]:
    """Yield the figures of one cell with their names."""
    trained = [s.key for s in record.stages if s.kind == "train" and s.own]
    if trained:
        yield "mixes", example_mixes(store, trained[0])
    if "attacked" in predictions_of(store, record):
        yield "adversaries", adversaries(store, record)
    for artifact in record.artifacts:
        if artifact.role == "search":
            result = json.loads((store.root / artifact.path).read_text(encoding="utf-8"))
            drawn = {
                "evolution": evolution(result),
                "combinations": combinations(result),
                "mutations": mutations(result, record.seed),
            }
            yield from ((name, figure) for name, figure in drawn.items() if figure is not None)
