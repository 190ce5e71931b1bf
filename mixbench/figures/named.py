"""The figures of the PatchMix paper by name, each from methods at work or from finished runs."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from mixbench.errors import UsageError
from mixbench.figures.boundaries import boundaries
from mixbench.figures.cycle import search_cycle
from mixbench.figures.localization import located_of, overlays
from mixbench.figures.pictures import bundled
from mixbench.figures.predictions import predictions_of
from mixbench.figures.preview import drawn, preview
from mixbench.figures.search import Result, combinations, evolution, mutations
from mixbench.leaderboard.questions import method_label, question_name
from mixbench.records.schema import Record
from mixbench.registry.cards import Card
from mixbench.store import Store


@dataclass(frozen=True)
class Subjects:
    """What a figure may be about.

    Attributes
    ----------
    cards
        The methods to show.
    records
        Of finished runs, those asked for.
    """

    cards: Sequence[Card]
    store: Store
    records: Sequence[Record]
    seed: int


def mixes(about: Subjects) -> Figure:
    """Return the same photographs as each method mixes them, with the shares of their labels."""
    return drawn(preview(about.cards, bundled(), Path(), "", about.seed))


def planes(about: Subjects) -> Figure:
    """Return the decision boundaries that each method leaves between three classes of points."""
    return boundaries(about.cards, about.seed)


def boxes(about: Subjects) -> Figure:
    """Return where the methods' models see birds, with found and true boxes, on the same images.

    Raises
    ------
    UsageError
        If no run left maps.
    """
    found: dict[str, dict[str, Record]] = {}
    for record in sorted(about.records, key=lambda record: record.seed):
        if "maps" in predictions_of(about.store, record):
            found.setdefault(question_name(record), {}).setdefault(method_label(record), record)
    if not found:
        raise UsageError(_lacking("localises", "of a task with maps"))
    runs = max(found.values(), key=len)
    maps = {name: located_of(predictions_of(about.store, r)) for name, r in runs.items()}
    return overlays(about.store, next(iter(runs.values())), maps)


def cycles(about: Subjects) -> Figure:
    """Return one cycle of the search, really run on three classes."""
    return search_cycle(about.store, _searched(about), about.seed)


def _of_result(draw: Callable[[Result], Figure | None]) -> Callable[[Subjects], Figure]:
    """Return a figure that is drawn from what a search left."""

    def figure(about: Subjects) -> Figure:
        record = _searched(about)
        path = next(a.path for a in record.artifacts if a.role == "search")
        result = json.loads((about.store.root / path).read_text(encoding="utf-8"))
        made = draw(result)
        if made is None:
            raise UsageError(f"The search of {record.cell} has no history: it was not genetic.")
        return made

    figure.__doc__ = draw.__doc__
    return figure


def _searched(about: Subjects) -> Record:
    """Return the first finished run that searched, a genetic one if there is any."""
    found = [r for r in about.records if any(a.role == "search" for a in r.artifacts)]
    if not found:
        raise UsageError(_lacking("searches", "of a method with a search"))
    return min(found, key=lambda r: (len(r.method.changed), r.seed))


def _lacking(does: str, run: str) -> str:
    return (
        f"No finished run that {does} is in the store: run one ({run}), or name it with -m and -t."
    )


def mutated(about: Subjects) -> Figure:
    """Return the first found masks beside what the search's four mutations make of them."""
    return _of_result(lambda result: mutations(result, about.seed))(about)


# By name: the number in the paper, and how it is drawn.
FIGURES: dict[str, tuple[str, Callable[[Subjects], Figure]]] = {
    "mixes": ("1", mixes),
    "cycle": ("3", cycles),
    "mutations": ("4", mutated),
    "boundaries": ("5", planes),
    "boxes": ("6", boxes),
    "evolution": ("7, 8", _of_result(evolution)),
    "pairs": ("9", _of_result(combinations)),
}
