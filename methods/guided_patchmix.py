"""Guided PatchMix: mix the class pairs and masks that are hardest for a Random PatchMix model.

Paper    Cascante-Bonilla et al., Evolving Image Compositions for Feature Representation Learning,
         BMVC 2021, arXiv:2106.09011, §3.3-3.4, Algorithm 2, A.5-A.7
Source   none published
Differs  where the paper does not specify a choice or contradicts itself, the choice is a parameter.
         Phase 1 is the training stage of random_patchmix. Phase 2 scores compositions of validation
         images, which are held out of the training split. Its operators depart from §3.3 and
         Figure 4 (`reading`): as written, the search keeps the pairs of its first generation,
         unlike in Figures 7 to 9. Phases 3 and 4 train on clean, random and guided samples, by
         default about a third of each batch each (`final`), with the loss L_O
"""

from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from mixbench.contract import Draws, Output, Preparation, Sources, Split, Step, Task
from mixbench.declare import Count, CountOrZero, File, Fraction, Need, Positive, SearchGrid
from mixbench.errors import UsageError
from mixbench.kernels import cell_areas, compose_grid, permutation
from mixbench.search.fitness import HeldOut
from mixbench.search.genetic import Settings
from mixbench.search.result import from_file
from mixbench.search.space import Space
from mixbench.search.strategies import SearchConfig, run_search

from .random_patchmix import RandomPatchMix


class GuidedPatchMix(RandomPatchMix):
    """Train on clean images, random compositions and compositions found by a search.

    Parameters
    ----------
    grid
        Number of cells along each axis of the grid, for the scoring model and for all compositions.
    cells
        Distribution of the cells of random compositions: ``bernoulli`` or ``beta``, as in
        random_patchmix.
    alpha
        Parameter α of λ ~ Beta(α, α), the probability that a cell of a random composition keeps the
        original image. Only used if `cells` is ``beta``.
    head
        Patch classifier: ``shared`` by all cells, one ``per_cell``, or the model's own classifier
        (``tied``), as in random_patchmix.
    patch_loss
        Whether the final model is trained with the patch loss too (L_T). If false, it is trained
        with the image loss alone (L_O).
    final
        Composition of the final training batches. ``thirds``: every sample is clean, random or
        guided with probability 1/3; a step costs as much as with other methods. ``sum``: the sum of
        the losses of three full batches, as written in the paper; a step costs three times as much.
    search
        How class pairs and masks are found. ``genetic``: the paper's genetic search. ``direct``:
        solve the same problem separately for each pair. ``random``: sample pairs and masks at
        random. ``fixed``: read them from `file`.
    file
        Path of the result of an earlier search (search.json). Required if `search` is ``fixed``,
        and not allowed otherwise.
    fitness
        Quantity that the search computes from the patch predictions on compositions of validation
        images: their ``accuracy`` or their ``loss``.
    goal
        Whether the search minimizes (``min``) or maximizes (``max``) the fitness.
    num_pairs
        Number of ordered cross-class pairs in a solution. 0 means the number of classes.
    same_class
        Whether every solution also contains the pair of each class with itself.
    image_pairs
        Number of image pairs that are composed to score one class pair.
    budget
        Number of images that the search may pass through the model. The genetic search starts no
        generation after it. The direct search screens all pairs and solves fewer of them if it does
        not suffice for all. The default takes 4 hours at 5,700 images per second, the speed at
        which the paper's search took 4 hours.
    reading
        Operators of the genetic search. ``dynamics``: mutations change one mask, and crossover also
        exchanges pairs that the other parent lacks, as the search shown in the paper's A.5 and A.7
        discards its first pairs. ``text``: mutations change all masks, and crossover keeps all
        pairs, as in the paper's §3.3 and Figure 4.
    exchanged
        Number of pairs that the mutation *flip heads* exchanges for others.
    population
        Number of solutions in each generation of the genetic search.
    generations
        Maximum number of generations of the genetic search.
    crossover
        Probability that two solutions of the genetic search are crossed.
    mutation
        Probability that a solution of the genetic search is mutated.
    tournament
        Number of solutions that compete in each tournament of the genetic search.
    patience
        Number of generations without improvement after which the genetic search stops. 0 disables
        early stopping.
    """

    pairs: Tensor  # (A, 2) int64: the two classes of every pair
    masks: Tensor  # (A, grid * grid) bool: the cells that show the first class

    version = 2
    needs = {
        "scorer": Need(
            method="random_patchmix",
            share=("grid", "cells", "alpha", "head"),
            when={"search": ("genetic", "direct")},
        )
    }
    by_protocol = {
        "quick": {"population": 60, "generations": 40, "image_pairs": 16},
        "few": {"population": 200, "generations": 100, "image_pairs": 32},
        "finetune": {"population": 60, "generations": 40, "image_pairs": 16},
        "toy": {"population": 8, "generations": 2, "image_pairs": 4},
    }

    def __init__(  # noqa: PLR0913  # every setting of the paper's search is a parameter
        self,
        grid: SearchGrid = 4,
        cells: Literal["bernoulli", "beta"] = "bernoulli",
        alpha: Positive = 1.0,
        head: Literal["shared", "per_cell", "tied"] = "shared",
        *,
        patch_loss: bool = False,
        final: Literal["thirds", "sum"] = "thirds",
        search: Literal["genetic", "direct", "random", "fixed"] = "genetic",
        file: File = "",
        fitness: Literal["accuracy", "loss"] = "accuracy",
        goal: Literal["min", "max"] = "min",
        num_pairs: CountOrZero = 0,
        same_class: bool = False,
        image_pairs: Count = 64,
        budget: Count = 80_000_000,
        reading: Literal["dynamics", "text"] = "dynamics",
        exchanged: Count = 1,
        population: Count = 500,
        generations: Count = 250,
        crossover: Fraction = 0.5,
        mutation: Fraction = 0.3,
        tournament: Count = 3,
        patience: CountOrZero = 0,
    ) -> None:
        super().__init__(grid, cells, alpha, patch_loss=patch_loss, head=head)
        self.final = final
        self.num_pairs = num_pairs
        self.same_class = same_class
        self.takes_file = bool(file)
        self._of: Tensor | None = None  # the pairs of which `_host` is a copy
        self._host = (torch.empty(0), torch.empty(0))
        settings = Settings(
            population=population,
            generations=generations,
            crossover=crossover,
            mutation=mutation,
            tournament=tournament,
            patience=patience,
            maximise=goal == "max",
            reading=reading,
            exchanged=exchanged,
            budget=budget,
        )
        self.search_config = SearchConfig(
            search, Path(file), fitness == "loss", image_pairs, settings
        )

    def check(self, task: Task, held_out: Split | None) -> None:
        """Check the parameters against the task's classes, image size and validation split."""
        super().check(task, held_out)
        if task.num_classes == 0:
            raise UsageError(
                "guided_patchmix searches pairs of classes, but this task has no classes. Use "
                "random_patchmix or another task."
            )
        space = self.space(task)
        if space.num_pairs > space.num_cross:
            raise UsageError(
                f"num_pairs must be at most {space.num_cross}, the number of ordered pairs of "
                f"{task.num_classes} classes (got {space.num_pairs})."
            )
        self.search_config.check(space)
        if (self.search_config.strategy == "fixed") != self.takes_file:
            raise UsageError("search=fixed and file=PATH require each other: set both or neither.")
        if self.takes_file:
            from_file(self.search_config.file, self.grid, task.num_classes)
        if held_out is not None and held_out.by_class is not None:
            empty = torch.nonzero(held_out.by_class.counts == 0).flatten().tolist()
            if empty:
                raise UsageError(
                    f"The search composes held-out images, but class {empty[0]} has none. Increase "
                    "the task's parameter holdout."
                )
            if self.search_config.strategy in {"genetic", "direct"}:
                HeldOut.check_memory(held_out, (getattr(task, "channels", 3), *task.test_size))

    def space(self, task: Task) -> Space:
        """Return the search space for a task."""
        number = self.num_pairs or task.num_classes
        return Space(task.num_classes, self.grid, number, self.same_class)

    def prepare(self, preparation: Preparation) -> None:
        """Run the search, or read its result from a file, and store pairs and masks as buffers."""
        space = self.space(preparation.task)
        found = run_search(self.search_config, space, preparation)
        ids = torch.from_numpy(found.ids.astype("int64"))
        pairs = torch.stack([ids // space.num_classes, ids % space.num_classes], 1)
        self.register_buffer("pairs", pairs)
        self.register_buffer("masks", torch.from_numpy(space.bits(found.masks)))

    def draws(self, size: int, rng: torch.Generator) -> Draws:
        """Announce the classes of the guided samples, which replace items of the batch."""
        chosen = self._choose(size, rng)
        replaced = (
            chosen.kind == GUIDED if self.final == "thirds" else torch.zeros(size, dtype=torch.bool)
        )
        return Draws(chosen.pairs.flatten(), replaced)

    def _choose(self, size: int, rng: torch.Generator) -> "Chosen":
        """Draw the kind of every sample, and the pairs of the guided ones."""
        kind = torch.randint(3, (size,), generator=rng)
        if self.final == "sum":
            kind = torch.arange(3).repeat_interleave(size)
        found = torch.randint(len(self.pairs), (int((kind == GUIDED).sum()),), generator=rng)
        if self._of is not self.pairs:  # copied to the host once, not in every step
            self._of, self._host = self.pairs, (self.pairs.cpu(), self.masks.cpu())
        pairs, masks = self._host
        return Chosen(kind, pairs[found], masks[found])

    def mix(self, x: Tensor, step: Step) -> tuple[Tensor, Sources]:
        """Return a batch of clean, random and guided samples, or all three batches concatenated."""
        size, device, rng = len(x), x.device, step.rng
        kind, pairs, masks = self._choose(size, rng)
        own = torch.arange(size).repeat(len(kind) // size)
        random = self.random_cells(rng)
        # Guided samples replace items of the batch; random ones are mixed from the others.
        others = torch.arange(size) if self.final == "sum" else torch.nonzero(kind != GUIDED)[:, 0]
        partner = torch.arange(size)
        partner[others] = others[permutation(len(others), rng, torch.device("cpu"))]
        drawn = step.draw(pairs.flatten()).cpu().view(-1, 2)

        guided = kind == GUIDED
        cells = (kind == CLEAN)[:, None] | random
        cells[guided] = masks
        first, second = own.clone(), partner[own]
        first[guided], second[guided] = drawn[:, 0], drawn[:, 1]
        index = torch.where(cells, first[:, None], second[:, None]).to(device)
        areas = cell_areas((x.shape[-2], x.shape[-1]), self.grid).to(device)
        sources = Sources(index, areas.expand(len(index), -1))
        return compose_grid(step.images, index, self.grid), sources

    def loss(self, output: Output, sources: Sources, step: Step) -> Tensor:
        """Return the mean loss over the samples, or the sum of the losses of the three batches."""
        mean = super().loss(output, sources, step)
        return 3 * mean if self.final == "sum" else mean


class Chosen(NamedTuple):
    """The draws of a step: the kind of each sample, and pairs and masks of the guided samples."""

    kind: Tensor
    pairs: Tensor
    masks: Tensor


CLEAN, GUIDED = 0, 2
