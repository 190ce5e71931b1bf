"""The genetic search of the paper, built on DEAP (arXiv:2106.09011, §3.3 and Algorithm 2).

An individual holds exactly N ordered cross-class pairs, and optionally all same-class pairs, each
with its mask. As in Algorithm 2, a generation consists of tournament selection, crossover, mutation
and the evaluation of the changed individuals. The result is the hall of fame. The paper leaves
these points open; here:

- crossover exchanges the right halves of the masks of the pairs that both parents have;
- a mutation is one of the four operators, drawn uniformly; *flip heads* exchanges pairs for pairs
  that the individual does not have, with new random masks; *random tails* flips each bit with
  probability 1 / P²;
- the first generation is evaluated before the first tournament.

What the paper says of the operators and what it shows of the search do not agree, so there are two
readings:

- ``text`` follows §3.3 and Figure 4: crossover keeps the pairs of both parents, and the mutations
  of masks change all masks of an individual. With 100 classes, most pairs found in this way are
  those of one random individual of the first generation.
- ``dynamics`` follows A.5, A.7 and Figures 7 to 9, where the first pairs are discarded within 50
  generations and the search is stable at 60 to 200: crossover also exchanges each pair that the
  other parent lacks with probability 1/2, and a mutation changes one mask.

All draws of a generation depend only on (seed, generation). A search that was stopped is therefore
run again from its start with the scores that it had computed, which takes seconds.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from deap import base, tools
from numpy.typing import NDArray

from mixbench.search.space import Ids, Masks, Space

Score = Callable[[Ids, Masks], NDArray[np.float64]]
SNAPSHOT_EVERY = 50
SWAPPED = 0.5  # probability that a pair which the other parent lacks is exchanged


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
    reading
        How crossover and mutation read the paper: ``text`` or ``dynamics``.
    exchanged
        Number of pairs that *flip heads* exchanges.
    budget
        Number of images passed through the model after which no generation starts.
    """

    population: int
    generations: int
    crossover: float
    mutation: float
    tournament: int
    patience: int
    maximise: bool
    reading: Literal["text", "dynamics"]
    exchanged: int
    budget: int


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
        self.item = rng.integers(space.num_pairs + len(space.same), size=size)
        self._stream = (seed, generation)

    def tails(self, number: int, count: int, space: Space) -> NDArray[np.bool_]:
        """Return the bits of an individual's masks that *random tails* flips, (count, num_bits)."""
        rng = np.random.default_rng([*self._stream, number])
        return rng.random((count, space.num_bits)) < 1 / space.num_bits

    def heads(
        self, number: int, count: int, space: Space
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], Masks]:
        """Return the slots that *flip heads* fills, and the ranks of free pairs and their masks."""
        rng = np.random.default_rng([*self._stream, number, 2])
        free = space.num_cross - space.num_pairs
        return (
            rng.choice(space.num_pairs, count, replace=False),
            rng.choice(free, count, replace=False),
            rng.integers(space.full, size=count, dtype=space.dtype, endpoint=True),
        )

    def swaps(self, number: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return which pair of the other parent each of `count` pairs meets, and which change."""
        rng = np.random.default_rng([*self._stream, number, 1])
        return rng.permutation(count), rng.random(count) < SWAPPED


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


def left_of_first(seed: int, space: Space, settings: Settings, found: Individual) -> int:
    """Return the largest number of a solution's pairs that one first individual had."""
    first = first_population(seed, space, settings, type(found.fitness))
    return max(int(np.isin(found.pairs, x.pairs).sum()) for x in first)


def select(population: Sequence[Individual], contestants: NDArray[np.int64]) -> list[Individual]:
    """Return the winner of every tournament; the first one wins a tie."""
    return [max((population[i] for i in row), key=lambda x: x.fitness) for row in contestants]


def mate(
    space: Space, settings: Settings, parents: tuple[Individual, Individual], draws: Draws, at: int
) -> None:
    """Exchange the right halves of the masks of common pairs, and in ``dynamics`` other pairs."""
    one, other = parents
    _, mine, theirs = np.intersect1d(
        one.ids(space), other.ids(space), assume_unique=True, return_indices=True
    )
    left = space.dtype.type(space.left)
    a, b = one.masks[mine], other.masks[theirs]
    one.masks[mine] = (a & left) | (b & ~left)
    other.masks[theirs] = (b & left) | (a & ~left)
    if settings.reading == "dynamics":
        _swap_pairs(one, other, draws, at)


def _swap_pairs(one: Individual, other: Individual, draws: Draws, at: int) -> None:
    """Exchange half of the pairs that only one of two individuals has, with their masks."""
    mine = np.flatnonzero(~np.isin(one.pairs, other.pairs))
    theirs = np.flatnonzero(~np.isin(other.pairs, one.pairs))
    order, swapped = draws.swaps(at, len(mine))
    mine, theirs = mine[swapped], theirs[order][swapped]
    for a, b in ((one.pairs, other.pairs), (one.masks, other.masks)):
        a[mine], b[theirs] = b[theirs], a[mine]


def mutate(space: Space, settings: Settings, individual: Individual, draws: Draws, at: int) -> None:
    """Apply the mutation that was drawn for an individual to all masks, or in ``dynamics`` one."""
    masks, item = individual.masks, draws.item[at]
    if settings.reading == "dynamics":
        masks = masks[item : item + 1]
    operator = draws.operator[at]
    if operator == 0:  # flip tails
        masks ^= space.dtype.type(space.full)
    elif operator == 1:
        masks[:] = space.transpose(masks)
    elif operator == 2:  # flip heads
        _exchange_pairs(space, settings.exchanged, individual, draws, at)
    else:  # random tails
        masks ^= space.pack(draws.tails(at, len(masks), space))


def _exchange_pairs(
    space: Space, number: int, individual: Individual, draws: Draws, at: int
) -> None:
    """Replace pairs by others that the individual does not have, with new random masks."""
    number = min(number, space.num_pairs, space.num_cross - space.num_pairs)
    slots, ranks, masks = draws.heads(at, number, space)
    first, second = np.divmod(individual.pairs, space.num_classes)
    taken = np.sort(first * (space.num_classes - 1) + second - (second > first))
    # The k-th free pair has rank k plus the number of taken pairs before it.
    ranks += np.searchsorted(taken - np.arange(len(taken)), ranks, side="right")
    individual.pairs[slots] = space.cross(ranks)
    individual.masks[slots] = masks


class Genetic:
    """A genetic search in progress.

    Attributes
    ----------
    generation
        Number of finished generations; 0 after the first evaluation.
    history
        One row per generation: best so far, best of the generation, mean, and the number of pairs
        of the first generation's best solution that the best solution so far has.
    """

    def __init__(self, seed: int, space: Space, settings: Settings, score: Score) -> None:
        self.space, self.settings, self.seed = space, settings, seed
        self.fitness = Merit if settings.maximise else Fitness
        self.toolbox = base.Toolbox()
        self.toolbox.register("select", select)
        self.toolbox.register("mate", mate, space, settings)
        self.toolbox.register("mutate", mutate, space, settings)
        self.toolbox.register("clone", Individual.copy)
        self.toolbox.register("map", partial(evaluate, space, score))
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
            self.toolbox.mate((one, other), draws, pair)
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
        if self.generation % SNAPSHOT_EVERY == 0:
            self.snapshots[self.generation] = [int(i) for i in self.best[0].ids(self.space)]
        self.history.append({
            "generation": self.generation,
            "best": self.best[0].fitness.values[0],
            "best_of_generation": best,
            "mean": float(np.mean(values)),
            "first_pairs": int(np.isin(self.best[0].pairs, self.snapshots[0]).sum()),
        })


def evaluate(space: Space, score: Score, individuals: Sequence[Individual]) -> None:
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
