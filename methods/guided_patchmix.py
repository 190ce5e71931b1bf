"""Guided PatchMix: compose the class pairs and masks that a Random PatchMix model finds hardest.

Paper    Cascante-Bonilla et al., Evolving Image Compositions for Feature Representation Learning,
         BMVC 2021, arXiv:2106.09011, §3.3-3.4, Algorithm 2, A.5-A.7
Source   none published
Differs  where the paper is silent or contradicts itself, the reading is a parameter. Phase 1 is the
         training stage of random_patchmix; phase 2 scores compositions of images held out of the
         training part; phases 3 and 4 train on clean, random and guided samples, by default a third
         of each batch each (`final`), with the loss L_O
"""

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from mixbench.contract import Output, Preparation, Sources, Split, Step, Task
from mixbench.declare import Count, CountOrZero, File, Fraction, Need, Positive, SearchGrid
from mixbench.errors import UsageError
from mixbench.kernels import cell_areas, compose_grid, permutation
from mixbench.search.genetic import Settings
from mixbench.search.result import from_file
from mixbench.search.space import Space
from mixbench.search.strategies import SearchConfig, run_search

from .random_patchmix import RandomPatchMix


class GuidedPatchMix(RandomPatchMix):
    """Mix clean images, random compositions and found ones.

    Parameters
    ----------
    grid, cells, alpha, head
        As of random_patchmix, for the model that scores and for the random samples.
    patch_loss
        Whether the final model is supervised by patches too (L_T), or by the image alone (L_O).
    final
        ``thirds``: every sample is clean, random or guided with probability 1/3, at the cost of any
        other method. ``sum``: the paper's literal sum of three losses, at three times the cost.
    search
        ``genetic`` is the paper's. ``direct`` solves the same problem pair by pair. ``random``
        takes random pairs and masks, ``fixed`` those of `file`.
    fitness, goal
        What of the patches on held-out compositions is scored, and whether it is to be small.
    num_pairs
        Ordered cross-class pairs in a solution; 0 for as many as there are classes.
    same_class
        Whether the pairs of each class with itself are always part of a solution.
    image_pairs
        Image pairs composed to score a class pair.
    population, generations, crossover, mutation, tournament, patience
        Of the genetic search; `patience` generations without a better solution end it, 0 never.
    """

    pairs: Tensor  # (A, 2) int64: the classes of every found pair
    masks: Tensor  # (A, grid * grid) bool: which cells the first class fills

    version = 1
    needs = {
        "scorer": Need(
            method="random_patchmix",
            share=("grid", "cells", "alpha", "head"),
            when={"search": ("genetic", "direct")},
        )
    }
    by_protocol = {
        "quick": {"population": 60, "generations": 40, "image_pairs": 16},
        "toy": {"population": 8, "generations": 2, "image_pairs": 4},
    }

    def __init__(  # noqa: PLR0913  # the settings of the paper's search, each by its name
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
        settings = Settings(
            population=population,
            generations=generations,
            crossover=crossover,
            mutation=mutation,
            tournament=tournament,
            patience=patience,
            maximise=goal == "max",
        )
        self.search_config = SearchConfig(
            search, Path(file), fitness == "loss", image_pairs, settings
        )

    def check(self, task: Task, held_out: Split | None) -> None:
        """Compare the parameters with the task's classes, images and held-out part."""
        super().check(task, held_out)
        if task.num_classes == 0:
            raise UsageError("guided_patchmix searches pairs of classes: this task has none.")
        space = self.space(task)
        if space.num_pairs > space.num_cross:
            raise UsageError(
                f"num_pairs must be at most {space.num_cross}, the ordered pairs of "
                f"{task.num_classes} classes (got {space.num_pairs})."
            )
        if (self.search_config.strategy == "fixed") != self.takes_file:
            raise UsageError("search=fixed and file=PATH belong together: give both or neither.")
        if self.takes_file:
            from_file(self.search_config.file, self.grid, task.num_classes)
        if held_out is not None and held_out.by_class is not None:
            empty = torch.nonzero(held_out.by_class.counts == 0).flatten().tolist()
            if empty:
                raise UsageError(
                    f"The search composes held-out images, but class {empty[0]} has none: hold out "
                    "more of the training images."
                )

    def space(self, task: Task) -> Space:
        """Return what is searched."""
        number = self.num_pairs or task.num_classes
        return Space(task.num_classes, self.grid, number, self.same_class)

    def prepare(self, preparation: Preparation) -> None:
        """Search, or read what was found, and keep pairs and masks in buffers."""
        space = self.space(preparation.task)
        found = run_search(self.search_config, space, preparation)
        ids = torch.from_numpy(found.ids.astype("int64"))
        pairs = torch.stack([ids // space.num_classes, ids % space.num_classes], 1)
        self.register_buffer("pairs", pairs)
        self.register_buffer("masks", torch.from_numpy(space.bits(found.masks)))

    def mix(self, x: Tensor, step: Step) -> tuple[Tensor, Sources]:
        """Return the batch, each sample clean, random or guided; or all three batches."""
        size, device, rng = len(x), x.device, step.rng
        kind = torch.randint(3, (size,), generator=rng)
        if self.final == "sum":
            kind = torch.arange(3).repeat_interleave(size)
        own = torch.arange(size).repeat(len(kind) // size)
        random = self.random_cells(rng)
        partner = permutation(size, rng, torch.device("cpu"))[own]
        guided = torch.nonzero(kind == GUIDED).flatten()
        found = torch.randint(len(self.pairs), (len(guided),), generator=rng)
        drawn = step.draw(self.pairs.cpu()[found].flatten()).cpu().view(-1, 2)

        cells = (kind == CLEAN)[:, None] | random
        cells[guided] = self.masks.cpu()[found]
        first, second = own.clone(), partner
        first[guided], second[guided] = drawn[:, 0], drawn[:, 1]
        index = torch.where(cells, first[:, None], second[:, None]).to(device)
        areas = cell_areas((x.shape[-2], x.shape[-1]), self.grid).to(device)
        sources = Sources(index, areas.expand(len(index), -1))
        return compose_grid(step.images, index, self.grid), sources

    def loss(self, output: Output, sources: Sources, step: Step) -> Tensor:
        """Return the mean over the samples, or the sum over the three batches."""
        mean = super().loss(output, sources, step)
        return 3 * mean if self.final == "sum" else mean


CLEAN, GUIDED = 0, 2
