"""The genetic search of the paper, built on DEAP (arXiv:2106.09011, §3.3 and Algorithm 2).

An individual holds exactly N ordered cross-class pairs, and optionally all same-class pairs, each
with its mask. As in Algorithm 2, a generation consists of tournament selection, crossover, mutation
and the evaluation of the changed individuals. The result is the hall of fame. The paper leaves
these points open; here:

- crossover exchanges the right halves of the masks of the pairs that both parents have, and keeps
  the pairs;
- a mutation is one of the four operators, drawn uniformly; *flip heads* exchanges one pair for one
  that the individual does not have, with a new random mask; *random tails* flips each bit with
  probability 1 / P²;
- the first generation is evaluated before the first tournament.

All draws of a generation depend only on (seed, generation), so a search can resume at any
generation.
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
    """Settings of the genetic search.

    Attributes
    ----------
    population
        Number of individuals.
    generations
        Maximum number of generations.
    crossover
        Probability that a pair of individuals is crossed.
    mutation
        Probability that an individual is mutated.
    tournament
        Number of individuals in each tournament.
    patience
        Number of generations without a better solution after which the search ends; 0 for no limit.
    maximise
        Whether larger scores are better.
    """

    population: int
    generations: int
    crossover: float
    mutation: float
    tournament: int
    patience: int
    maximise: bool


State = dict[str, Any]  # arrays and JSON values by name


class Fitness(base.Fitness):  # type: ignore[misc]  # deap ships no types
    """A score to minimise."""

    weights = (-1.0,)


class Merit(base.Fitness):  # type: ignore[misc]  # deap ships no types
    """A score to maximise."""

    weights = (1.0,)


class Individual:
    """A solution: cross-class pairs, and masks for them and then for the same-class pairs."""

    def __init__(self, pairs: Ids, masks: Masks, fitness: base.Fitness) -> None:
        self.pairs = pairs
        self.masks = masks
        self.fitness = fitness

    def copy(self) -> "Individual":
        """Return a deep copy."""
        fitness = type(self.fitness)(self.fitness.values)
        return Individual(self.pairs.copy(), self.masks.copy(), fitness)

    def ids(self, space: Space) -> Ids:
        """Return all pairs, with the same-class pairs last."""
        return np.concatenate([self.pairs, space.same])


class Draws:
    """All random draws of one generation, made before any selection."""

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
        """Return the bits of an individual's masks that *random tails* flips, (count, num_bits)."""
        rng = np.random.default_rng([*self._tails, number])
        return rng.random((count, space.num_bits)) < 1 / space.num_bits


def first_population(
    seed: int, space: Space, settings: Settings, fitness: type[base.Fitness]
) -> list[Individual]:
    """Return individuals with random pairs and random masks."""
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
    """Return the winner of every tournament; the first one wins a tie."""
    return [max((population[i] for i in row), key=lambda x: x.fitness) for row in contestants]


def mate(space: Space, one: Individual, other: Individual) -> None:
    """Exchange the right halves of the masks of the pairs that both individuals have."""
    _, mine, theirs = np.intersect1d(
        one.ids(space), other.ids(space), assume_unique=True, return_indices=True
    )
    left = space.dtype.type(space.left)
    a, b = one.masks[mine], other.masks[theirs]
    one.masks[mine] = (a & left) | (b & ~left)
    other.masks[theirs] = (b & left) | (a & ~left)


def mutate(space: Space, individual: Individual, draws: Draws, number: int) -> None:
    """Apply to an individual the mutation operator that was drawn for it."""
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
    """Replace one pair by one that the individual does not have, with a new random mask."""
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
    """A genetic search in progress.

    Attributes
    ----------
    generation
        Number of finished generations; 0 after the first evaluation.
    history
        One row per generation: best so far, best of the generation, mean.
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
        """Draw and evaluate the first population."""
        population = first_population(self.seed, self.space, self.settings, self.fitness)
        self.toolbox.map(population)
        self._close(population)

    def breed(self) -> Iterator[list[Individual]]:
        """Yield the offspring three times: after selection, after crossover, after mutation."""
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
        """Whether all generations are done or the patience is exhausted."""
        patience = self.settings.patience
        stale = 0 < patience < len(self.history) and (
            self.history[-1]["best"] == self.history[-1 - patience]["best"]
        )
        return self.generation >= self.settings.generations or stale

    def _close(self, population: list[Individual]) -> None:
        """Make the population the current one and record its scores."""
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

    def state(self) -> State:
        """Return the state needed to resume, as arrays and JSON values."""
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

    def restore(self, state: State) -> None:
        """Resume from the state that `state` returned."""
        rows = zip(state["pairs"], state["masks"], state["fitness"], strict=True)
        everyone = [Individual(p.copy(), m.copy(), self.fitness((float(f),))) for p, m, f in rows]
        self.population = everyone[:-1]
        self.best.update(everyone[-1:])
        progress = state["progress"]
        self.generation, self.history = progress["generation"], progress["history"]
        self.snapshots = {int(g): ids for g, ids in progress["snapshots"].items()}


def _evaluate(space: Space, score: Score, individuals: Sequence[Individual]) -> None:
    """Set the fitness of each individual to the mean score of its items, scored in one call."""
    if not individuals:
        return
    ids = np.stack([x.ids(space) for x in individuals])
    masks: Masks = np.stack([x.masks for x in individuals])
    scores = score(ids, masks)
    for individual, value in zip(individuals, scores.mean(1), strict=True):
        individual.fitness.values = (float(value),)


def _same(one: Individual, other: Individual) -> bool:
    return bool((one.pairs == other.pairs).all() and (one.masks == other.masks).all())
