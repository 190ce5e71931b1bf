"""Figures of the PatchMix paper by name, drawn from methods or from finished runs."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from mixbench.errors import UsageError
from mixbench.figures.cells import first_runs
from mixbench.figures.localization import Located, located_of, overlays
from mixbench.figures.patchmix.boundaries import boundaries
from mixbench.figures.patchmix.cycle import search_cycle
from mixbench.figures.patchmix.search import Result, combinations, evolution, mutations
from mixbench.figures.pictures import bundled
from mixbench.figures.predictions import predictions_of
from mixbench.figures.preview import drawn, preview
from mixbench.records.schema import Record
from mixbench.registry.cards import Card
from mixbench.storage.store import Store


@dataclass(frozen=True)
class Subjects:
    """Inputs from which a figure is drawn.

    Attributes
    ----------
    cards
        Cards of the methods to show.
    store
        Store with the artifacts of the runs.
    records
        Records of the selected finished runs.
    seed
        Seed of all random draws of the figure.
    """

    cards: Sequence[Card]
    store: Store
    records: Sequence[Record]
    seed: int


def mixes(about: Subjects) -> Figure:
    """Return a figure of the same photographs mixed by each method, with their label weights."""
    return drawn(preview(about.cards, bundled(), Path(), "", about.seed))


def boxes(about: Subjects) -> Figure:
    """Return each method's class activation maps on the same images, with found and true boxes.

    Raises
    ------
    UsageError
        If no finished run has class activation maps.
    """
    located: list[tuple[Record, dict[str, Located]]] = []
    for runs in first_runs(about.records).values():
        left = ((name, predictions_of(about.store, record)) for name, record in runs.items())
        maps = {name: located_of(tensors) for name, tensors in left if "maps" in tensors}
        if maps:
            located.append((next(iter(runs.values())), maps))
    if not located:
        raise UsageError(_lacking("localises", "of a task with maps"))
    record, maps = max(located, key=lambda found: len(found[1]))
    return overlays(about.store, record, maps)


def fitness(about: Subjects) -> Figure:
    """Return the fitness over the generations of a search, with the pairs gained and lost.

    Raises
    ------
    UsageError
        If the search was not genetic, so it has no history.
    """
    made = evolution(_result(about))
    if made is None:
        cell = _searched(about).cell
        raise UsageError(
            f"The search of {cell} has no history, because it was not genetic: select a run "
            "with a genetic search with -m and -t."
        )
    return made


def _result(about: Subjects) -> Result:
    """Return the search result of a finished run."""
    path = next(a.path for a in _searched(about).artifacts if a.role == "search")
    found: Result = json.loads((about.store.root / path).read_text(encoding="utf-8"))
    return found


def _searched(about: Subjects) -> Record:
    """Return the finished run with a search that has the fewest changed parameters."""
    found = [r for r in about.records if any(a.role == "search" for a in r.artifacts)]
    if not found:
        raise UsageError(_lacking("searches", "of a method with a search"))
    return min(found, key=lambda r: (len(r.method.changed), r.seed))


def _lacking(does: str, run: str) -> str:
    return (
        f"No finished run that {does} is in the store: run one ({run}), or select one that exists "
        "with -m and -t."
    )


FIGURES: dict[str, Callable[[Subjects], Figure]] = {
    "mixes": mixes,
    "cycle": lambda about: search_cycle(about.store, _searched(about), about.seed),
    "mutations": lambda about: mutations(_result(about), about.seed),
    "boundaries": lambda about: boundaries(about.cards, about.seed),
    "boxes": boxes,
    "evolution": fitness,
    "pairs": lambda about: combinations(_result(about)),
}
