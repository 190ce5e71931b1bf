"""The figures of the PatchMix paper by name, each from methods at work or from finished runs."""

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


def boxes(about: Subjects) -> Figure:
    """Return where the methods' models see birds, with found and true boxes, on the same images.

    Raises
    ------
    UsageError
        If no run left maps.
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
    """Return how the fitness of a search fell, and which pairs came and went.

    Raises
    ------
    UsageError
        If the search was not genetic, and has no history.
    """
    made = evolution(_result(about))
    if made is None:
        cell = _searched(about).cell
        raise UsageError(f"The search of {cell} has no history: it was not genetic.")
    return made


def _result(about: Subjects) -> Result:
    """Return what the search of a finished run left."""
    path = next(a.path for a in _searched(about).artifacts if a.role == "search")
    found: Result = json.loads((about.store.root / path).read_text(encoding="utf-8"))
    return found


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


FIGURES: dict[str, Callable[[Subjects], Figure]] = {
    "mixes": mixes,
    "cycle": lambda about: search_cycle(about.store, _searched(about), about.seed),
    "mutations": lambda about: mutations(_result(about), about.seed),
    "boundaries": lambda about: boundaries(about.cards, about.seed),
    "boxes": boxes,
    "evolution": fitness,
    "pairs": lambda about: combinations(_result(about)),
}
