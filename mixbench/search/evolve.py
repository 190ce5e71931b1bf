"""Run the genetic search to its end."""

from collections.abc import Callable

from mixbench.search.fitness import Scorer
from mixbench.search.genetic import Genetic, Settings, evaluate, left_of_first
from mixbench.search.result import SearchResult
from mixbench.search.space import Space

Report = Callable[[int, int, dict[str, float]], None]


def evolve(
    space: Space, settings: Settings, scorer: Scorer, exact: Scorer, seed: int, report: Report
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
    exact
        Scores the last population and the best solution again if it is not `scorer`: a search in
        bfloat16 ends with scores in float32.
    seed
        Seed of all random draws of the search.
    report
        Function called after every generation with the number of finished generations, the number
        of all generations and the scores to show.
    """
    search = Genetic(seed, space, settings, scorer)
    search.start()
    while not search.finished and scorer.num_forwards < settings.budget:
        search.step()
        last = search.history[-1]
        hits = 100 * (1 - scorer.num_items / max(scorer.num_requests, 1))
        numbers = {"best": last["best"], "mean": last["mean"], "hits_%": hits}
        report(search.generation, settings.generations, numbers)
    winner = search.best[0]
    if exact is not scorer:
        finalists = [winner.copy(), *(x.copy() for x in search.population)]
        evaluate(space, exact, finalists)
        winner = max(finalists, key=lambda x: x.fitness)
    ids = winner.ids(space)
    search.snapshots[search.generation] = [int(i) for i in ids]
    return SearchResult(
        ids,
        winner.masks,
        exact(ids, winner.masks),
        search.history,
        search.snapshots,
        left_of_first(seed, space, settings, winner),
    )
