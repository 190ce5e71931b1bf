"""The paper's genetic search, on DEAP (arXiv:2106.09011, §3.3 and Algorithm 2).

An individual holds exactly N ordered cross-class pairs, and optionally all same-class pairs, each
with its mask. As in Algorithm 2 a generation is a tournament, crossover, mutation and the
evaluation of whom they changed; the answer is the hall of fame. Where the paper is silent:

- crossover exchanges the halves of masks of pairs that both parents have, and leaves the pairs;
- a mutation is one of the four operators, drawn uniformly; *flip heads* exchanges one pair for one
  that the individual does not have, with a fresh mask; *random tails* flips each bit with
  probability 1 / P²;
- the first generation is evaluated before the first tournament.

All draws of a generation come from (seed, generation), so a search continues from any generation.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from deap import base, tools
from numpy.typing import NDArray

from mixbench.search.space import Ids, Masks, Space

Score = Callable[[Ids, Masks], NDArray[np.float64]]
SNAPSHOT_EVERY = 50


@dataclass(frozen=True)
class Settings:
    """How to search.

    Attributes
    ----------
    maximise
        Whether larger scores are better.
    patience
        Generations without a better solution after which the search ends; 0 for never.
    """

    population: int
    generations: int
    crossover: float
    mutation: float
    tournament: int
    patience: int
    maximise: bool


class Fitness(base.Fitness):  # type: ignore[misc]  # deap ships no types
    """A score that is to be small."""

    weights = (-1.0,)


class Merit(base.Fitness):  # type: ignore[misc]  # deap ships no types
    """A score that is to be large."""

    weights = (1.0,)


class Individual:
    """A solution: pairs, and masks for them and for the same-class pairs after them."""

    def __init__(self, pairs: Ids, masks: Masks, fitness: base.Fitness) -> None:
        self.pairs = pairs
        self.masks = masks
        self.fitness = fitness

    def copy(self) -> "Individual":
        """Return an individual that shares nothing with this one."""
        fitness = type(self.fitness)(self.fitness.values)
        return Individual(self.pairs.copy(), self.masks.copy(), fitness)

    def ids(self, space: Space) -> Ids:
        """Return all pairs, the same-class ones last."""
        return np.concatenate([self.pairs, space.same])


class Draws:
    """Everything random in one generation, drawn before anything is decided."""

    def __init__(self, seed: int, generation: int, space: Space, settings: Settings) -> None:
        rng = np.random.default_rng([seed, generation])
        size = settings.population
        self.contestants = rng.integers(size, size=(size, settings.tournament))
        self.crosses = rng.random(size // 2) < settings.crossover
        self.mutates = rng.random(size) < settings.mutation
        self.operator = rng.integers(4, size=size)
        self.slot = rng.integers(space.num_pairs, size=size)
        self.rank = rng.random(size)
        self.mask = rng.integers(space.full, size=size, dtype=np.uint64, endpoint=True)
        self._tails = (seed, generation)

    def tails(self, number: int, count: int, space: Space) -> NDArray[np.bool_]:
        """Return which bits of an individual's masks *random tails* flips, (count, num_bits)."""
        rng = np.random.default_rng([*self._tails, number])
        return rng.random((count, space.num_bits)) < 1 / space.num_bits


def first_population(
    seed: int, space: Space, settings: Settings, fitness: type[base.Fitness]
) -> list[Individual]:
    """Return individuals of random pairs and random masks."""
    rng = np.random.default_rng([seed])
    number = space.num_pairs + len(space.same)
    return [
        Individual(
            space.cross(rng.choice(space.num_cross, space.num_pairs, replace=False)),
            rng.integers(space.full, size=number, dtype=space.dtype, endpoint=True),
            fitness(),
        )
        for _ in range(settings.population)
    ]


def select(population: Sequence[Individual], contestants: NDArray[np.int64]) -> list[Individual]:
    """Return the winner of every tournament; of equals, the first."""
    return [max((population[i] for i in row), key=lambda x: x.fitness) for row in contestants]


def mate(space: Space, one: Individual, other: Individual) -> None:
    """Exchange the right halves of the masks of pairs that both have."""
    _, mine, theirs = np.intersect1d(
        one.ids(space), other.ids(space), assume_unique=True, return_indices=True
    )
    left = space.dtype.type(space.left)
    a, b = one.masks[mine], other.masks[theirs]
    one.masks[mine] = (a & left) | (b & ~left)
    other.masks[theirs] = (b & left) | (a & ~left)


def mutate(space: Space, individual: Individual, draws: Draws, number: int) -> None:
    """Change an individual by the operator that was drawn for it."""
    full = space.dtype.type(space.full)
    operator = draws.operator[number]
    if operator == 0:  # flip tails
        individual.masks ^= full
    elif operator == 1:
        individual.masks = space.transpose(individual.masks)
    elif operator == 2:  # flip heads
        _exchange_pair(space, individual, draws, number)
    else:  # random tails
        individual.masks ^= space.pack(draws.tails(number, len(individual.masks), space))


def _exchange_pair(space: Space, individual: Individual, draws: Draws, number: int) -> None:
    """Replace one pair by one that the individual does not have, with a fresh mask."""
    free = space.num_cross - space.num_pairs
    if free == 0:
        return
    first, second = np.divmod(individual.pairs, space.num_classes)
    taken = np.sort(first * (space.num_classes - 1) + second - (second > first))
    rank = int(draws.rank[number] * free)
    rank += int(np.searchsorted(taken - np.arange(len(taken)), rank, side="right"))
    slot = draws.slot[number]
    individual.pairs[slot] = space.cross(rank)
    individual.masks[slot] = draws.mask[number]


class Genetic:
    """A search in progress.

    Attributes
    ----------
    generation
        Generations that are done; 0 after the first evaluation.
    history
        Best so far, best and mean of every generation.
    """

    def __init__(self, seed: int, space: Space, settings: Settings, score: Score) -> None:
        self.space, self.settings, self.seed = space, settings, seed
        self.fitness = Merit if settings.maximise else Fitness
        self.toolbox = base.Toolbox()
        self.toolbox.register("select", select)
        self.toolbox.register("mate", mate, space)
        self.toolbox.register("mutate", mutate, space)
        self.toolbox.register("clone", Individual.copy)
        self.toolbox.register("map", partial(_evaluate, space, score))
        self.best = tools.HallOfFame(1, similar=_same)
        self.population: list[Individual] = []
        self.generation = -1
        self.history: list[dict[str, float]] = []
        self.snapshots: dict[int, list[int]] = {}

    def start(self) -> None:
        """Make and evaluate the first population."""
        population = first_population(self.seed, self.space, self.settings, self.fitness)
        self.toolbox.map(population)
        self._close(population)

    def breed(self) -> Iterator[list[Individual]]:
        """Yield the next generation's individuals when selected, when crossed, when mutated."""
        draws = Draws(self.seed, self.generation + 1, self.space, self.settings)
        chosen = self.toolbox.select(self.population, draws.contestants)
        offspring = [self.toolbox.clone(individual) for individual in chosen]
        yield offspring
        for pair in np.flatnonzero(draws.crosses):
            one, other = offspring[2 * pair], offspring[2 * pair + 1]
            self.toolbox.mate(one, other)
            del one.fitness.values, other.fitness.values
        yield offspring
        for number in np.flatnonzero(draws.mutates):
            self.toolbox.mutate(offspring[number], draws, number)
            del offspring[number].fitness.values
        yield offspring

    def step(self) -> None:
        """Run one generation: lines 20 to 28 of Algorithm 2."""
        *_, offspring = self.breed()
        self.toolbox.map([x for x in offspring if not x.fitness.valid])
        self._close(offspring)

    @property
    def finished(self) -> bool:
        """Whether all generations are done, or patience is at its end."""
        patience = self.settings.patience
        stale = 0 < patience < len(self.history) and (
            self.history[-1]["best"] == self.history[-1 - patience]["best"]
        )
        return self.generation >= self.settings.generations or stale

    def _close(self, population: list[Individual]) -> None:
        """Make the population the current one, and note how good it is."""
        self.population = population
        self.best.update(population)
        self.generation += 1
        values = [x.fitness.values[0] for x in population]
        best = max(values) if self.settings.maximise else min(values)
        self.history.append({
            "generation": self.generation,
            "best": self.best[0].fitness.values[0],
            "best_of_generation": best,
            "mean": float(np.mean(values)),
        })
        if self.generation % SNAPSHOT_EVERY == 0:
            self.snapshots[self.generation] = [int(i) for i in self.best[0].ids(self.space)]

    def state(self) -> dict[str, Any]:
        """Return what a continuation needs, as arrays and plain numbers."""
        everyone = [*self.population, self.best[0]]
        return {
            "pairs": np.stack([x.pairs for x in everyone]),
            "masks": np.stack([x.masks for x in everyone]),
            "fitness": np.array([x.fitness.values[0] for x in everyone]),
            "progress": {
                "generation": self.generation,
                "history": self.history,
                "snapshots": self.snapshots,
            },
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        rows = zip(state["pairs"], state["masks"], state["fitness"], strict=True)
        everyone = [Individual(p.copy(), m.copy(), self.fitness((float(f),))) for p, m, f in rows]
        self.population = everyone[:-1]
        self.best.update(everyone[-1:])
        progress = state["progress"]
        self.generation, self.history = progress["generation"], progress["history"]
        self.snapshots = {int(g): ids for g, ids in progress["snapshots"].items()}


def _evaluate(space: Space, score: Score, individuals: Sequence[Individual]) -> None:
    """Give every individual its fitness: the mean score of its items, all asked for at once."""
    if not individuals:
        return
    ids = np.stack([x.ids(space) for x in individuals])
    masks: Masks = np.stack([x.masks for x in individuals])
    scores = score(ids, masks)
    for individual, value in zip(individuals, scores.mean(1), strict=True):
        individual.fitness.values = (float(value),)


def _same(one: Individual, other: Individual) -> bool:
    return bool((one.pairs == other.pairs).all() and (one.masks == other.masks).all())
