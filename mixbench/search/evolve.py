"""Run the genetic search to its end, resuming from the saved state of an earlier process."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import numpy as np

from mixbench.search.fitness import Scorer
from mixbench.search.genetic import Genetic, Settings, State
from mixbench.search.result import SearchResult
from mixbench.search.space import Space
from mixbench.storage.files import write_bytes

Report = Callable[[int, int, dict[str, float]], None]
SAVE_EVERY_S = 5.0
STATE = "search.npz"


def evolve(
    space: Space, settings: Settings, scorer: Scorer, seed: int, scratch: Path, report: Report
) -> SearchResult:
    """Return the best solution of all generations.

    Parameters
    ----------
    space
        The pairs and masks to choose from.
    settings
        Settings of the genetic search.
    scorer
        Scores (pair, mask) items and keeps their scores.
    seed
        Seed of all random draws of the search.
    scratch
        Folder in which the search saves its state every few seconds, and from which it resumes.
    report
        Function called after every generation with the number of finished generations, the number
        of all generations and the scores to show.
    """
    search = Genetic(seed, space, settings, scorer)
    if not _restore(search, scorer, scratch / STATE):
        search.start()
    saved = monotonic()
    while not search.finished:
        search.step()
        last = search.history[-1]
        hits = 100 * (1 - scorer.num_items / max(scorer.num_requests, 1))
        numbers = {"best": last["best"], "mean": last["mean"], "hits_%": hits}
        if monotonic() - saved >= SAVE_EVERY_S:
            _save(search, scorer, scratch / STATE)
            saved = monotonic()
        try:
            report(search.generation, settings.generations, numbers)
        except BaseException:  # a stop request: save the finished generations
            _save(search, scorer, scratch / STATE)
            raise
    winner = search.best[0]
    ids = winner.ids(space)
    search.snapshots[search.generation] = [int(i) for i in ids]
    return SearchResult(
        ids, winner.masks, scorer(ids, winner.masks), search.history, search.snapshots
    )


def _save(search: Genetic, scorer: Scorer, path: Path) -> None:
    state = search.state()
    keys, scores = scorer.memory
    counts = {"requests": scorer.num_requests, "forwards": scorer.num_forwards}
    text = json.dumps(state.pop("progress") | counts)
    buffer = io.BytesIO()
    np.savez(buffer, **state, keys=keys, scores=scores, progress=np.array(text))
    write_bytes(path, buffer.getvalue())


def _restore(search: Genetic, scorer: Scorer, path: Path) -> bool:
    """Restore a saved state; return whether there was an intact one."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            state: State = {name: arrays[name] for name in arrays.files}
        state["progress"] = json.loads(str(state["progress"]))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return False
    scorer.recall(state["keys"], state["scores"])
    scorer.num_requests = state["progress"]["requests"]
    scorer.num_forwards = state["progress"]["forwards"]
    search.restore(state)
    return True
