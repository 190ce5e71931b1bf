"""Search strategies for pairs and masks: genetic, direct, random and fixed."""

import io
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import torch
from pydantic import JsonValue
from torch import Tensor

from mixbench.contract import Backbone, Method, Preparation, Processes
from mixbench.errors import UsageError
from mixbench.search.direct import pairs_within, screened, solve, unordered_pairs
from mixbench.search.evolve import evolve
from mixbench.search.fitness import HeldOut, Known, Scorer
from mixbench.search.genetic import Settings
from mixbench.search.result import SearchResult, from_file, to_json
from mixbench.search.space import Space
from mixbench.storage.files import write_bytes
from mixbench.streams import stream_seed

RESULT, STATE = "search.json", "scores.npz"
SAVE_EVERY_S = 60.0


@dataclass(frozen=True)
class SearchConfig:
    """Configuration of a search for pairs and masks.

    Attributes
    ----------
    strategy
        ``genetic``, ``direct``, ``random`` or ``fixed``.
    file
        Result file of an earlier search, for ``fixed``.
    by_loss
        Whether to score by the patches' loss instead of their accuracy.
    image_pairs
        Number of image pairs composed to score a class pair.
    settings
        Settings of the genetic search; ``direct`` uses only `Settings.maximise` and
        `Settings.budget`.
    """

    strategy: str
    file: Path
    by_loss: bool
    image_pairs: int
    settings: Settings

    def check(self, space: Space) -> None:
        """Check that the budget suffices for a space.

        Raises
        ------
        UsageError
            If a direct search, or the first generation of a genetic one, needs more images than the
            budget has.
        """
        budget, number = self.settings.budget, space.num_pairs + len(space.same)
        if self.strategy == "direct":
            pairs_within(space, self.image_pairs, budget)
        first = self.settings.population * number * self.image_pairs
        if self.strategy == "genetic" and first > budget:
            raise UsageError(
                f"The first generation of the search scores up to {first:,} images, of "
                f"{self.settings.population} solutions with {number} pairs: budget must be at "
                f"least as large (got {budget:,}). Increase budget, or reduce population, "
                "num_pairs or image_pairs."
            )


def run_search(config: SearchConfig, space: Space, preparation: Preparation) -> SearchResult:
    """Return pairs and masks, and write them to search.json among the stage's results."""
    names = preparation.task.class_names(preparation.folder)
    seed = stream_seed(preparation.seed, "search")
    facts: dict[str, JsonValue] = {"search": config.strategy}
    if config.strategy == "fixed":
        found = from_file(config.file, space.grid, space.num_classes, names)
    elif config.strategy == "random":
        found = random_pairs(space, seed)
    else:
        found, counts = _scored_search(config, space, preparation, seed)
        facts |= counts
    text = to_json(found, space, names, facts)
    write_bytes(preparation.results / RESULT, text.encode())
    return found


def _scored_search(
    config: SearchConfig, space: Space, preparation: Preparation, seed: int
) -> tuple[SearchResult, dict[str, JsonValue]]:
    """Run a search that scores compositions, and return its result and what it took."""
    settings = config.settings
    scorer, exact = make_scorers(config, space, preparation)
    same = scorer is exact
    scorers = {"search": scorer} if same else {"search": scorer, "exact": exact}
    progress = Progress(scorers, preparation)
    if config.strategy == "genetic":
        found = evolve(space, settings, scorer, exact, seed, progress.report)
    else:
        number = pairs_within(space, config.image_pairs, settings.budget)
        pairs = unordered_pairs(space)
        if number < len(pairs):
            pairs = screened(space, scorer.screen, seed, number, maximise=settings.maximise)
        found = solve(
            space, scorer, seed, pairs, maximise=settings.maximise, report=progress.report
        )
        found = replace(found, scores=exact(found.ids, found.masks))
    facts: dict[str, JsonValue] = {"reading": settings.reading, "exchanged": settings.exchanged}
    return found, {
        **(facts if config.strategy == "genetic" else {}),
        "score": "patch loss" if config.by_loss else "patch accuracy",
        "goal": "max" if settings.maximise else "min",
        "requests": scorer.num_requests,
        "distinct": scorer.num_items,
        "forwards": scorer.num_forwards + (0 if same else exact.num_forwards),
        "budget": settings.budget,
        "precision": "float32" if same else "bfloat16, the last solutions in float32",
    }


class Progress:
    """Reports the progress of a search and saves its scores, so that it can be run again quickly.

    Parameters
    ----------
    scorers
        The scorers of the search, by the name under which their scores are saved, every minute and
        when the search is stopped.
    preparation
        The preparation that searches; its `scratch` receives the scores.
    """

    def __init__(self, scorers: Mapping[str, Scorer], preparation: Preparation) -> None:
        self._scorers, self._preparation = scorers, preparation
        self._path = preparation.scratch / STATE
        self._last: tuple[int, int, Mapping[str, float]] = (0, 1, {})
        self._saved = monotonic()
        first = preparation.processes.rank == 0
        saved = saved_scores(self._path) if first else {}
        for name, scorer in scorers.items():
            scorer.recall(_of_first(saved.get(name, Known()), preparation.processes))
            scorer.after_group = self._tell

    def report(self, done: int, total: int, numbers: Mapping[str, float]) -> None:
        """Report the finished steps of the search."""
        self._last = (done, total, numbers)
        self._tell()

    def _tell(self) -> None:
        done, total, numbers = self._last
        if monotonic() - self._saved >= SAVE_EVERY_S:
            self._save()
        images = float(sum(scorer.num_forwards for scorer in self._scorers.values()))
        try:
            self._preparation.report(done, total, {**numbers, "images": images})
        except BaseException:  # a stop request: save what was scored since
            self._save()
            raise

    def _save(self) -> None:
        self._saved = monotonic()
        if self._preparation.processes.rank == 0:
            buffer, arrays = io.BytesIO(), dict[str, Any]()
            for name, scorer in self._scorers.items():
                known = scorer.memory
                arrays |= {f"{name} keys": known.keys, f"{name} scores": known.scores}
            np.savez(buffer, **arrays)
            write_bytes(self._path, buffer.getvalue())


def _of_first(known: Known, processes: Processes) -> Known:
    """Return the scores of the first process in every process.

    If each read the file itself, they might see different states of a shared disk, and would then
    score different items.
    """
    number = int(processes.sum(torch.tensor([len(known.keys)]))[0])
    keys, scores = torch.zeros(number, dtype=torch.int64), torch.zeros(number, dtype=torch.float64)
    if processes.rank == 0:
        keys, scores = torch.from_numpy(known.keys), torch.from_numpy(known.scores)
    return Known(processes.sum(keys).numpy(), processes.sum(scores).numpy())


def saved_scores(path: Path) -> dict[str, Known]:
    """Return the scores that an earlier process saved, by scorer; none without an intact file."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            names = {name.partition(" ")[0] for name in arrays}
            return {n: Known(arrays[f"{n} keys"], arrays[f"{n} scores"]) for n in names}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return {}


def random_pairs(space: Space, seed: int) -> SearchResult:
    """Return random pairs with random masks, the control for a guided search."""
    rng = np.random.default_rng([seed])
    ranks = rng.choice(space.num_cross, space.num_pairs, replace=False)
    ids = np.concatenate([space.cross(ranks), space.same])
    return SearchResult(
        ids, rng.integers(space.full, size=len(ids), dtype=space.dtype, endpoint=True)
    )


def make_scorers(
    config: SearchConfig, space: Space, preparation: Preparation
) -> tuple[Scorer, Scorer]:
    """Return scorers that apply the phase-1 model to images held out of its training.

    The first has the recipe's precision, the second float32; they are one scorer if the recipe's
    precision is not bfloat16.

    Raises
    ------
    UsageError
        If the task has no classes.
    """
    model, method = preparation.trained["scorer"]
    split = preparation.task.load("validation", preparation.folder, preparation.seed)
    if split.by_class is None:
        raise UsageError("The search needs a task with one class per image; choose another task.")
    held_out = HeldOut.of(split, preparation.seed, preparation.device)

    def scorer(*, half: bool) -> Scorer:
        return Scorer(
            space,
            held_out,
            patch_logits(model, method, half=half),
            config.image_pairs,
            by_loss=config.by_loss,
            processes=preparation.processes,
        )

    exact = scorer(half=False)
    return (
        (scorer(half=True), exact) if preparation.recipe.precision == "bfloat16" else (exact, exact)
    )


def patch_logits(
    model: Backbone, method: Method, *, half: bool = False
) -> Callable[[Tensor], Tensor]:
    """Return a function from images to the logits of their patches, using channels-last memory.

    Parameters
    ----------
    model
        The trained model that returns feature maps.
    method
        A PatchMix method, whose `patches` classifies the cells of a feature map.
    half
        Whether to compute in bfloat16.
    """
    model = model.to(memory_format=torch.channels_last)

    def patches(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16, half):
            features = model(x.contiguous(memory_format=torch.channels_last)).features
            logits: Tensor = method.patches(features)  # type: ignore[operator]
        return logits

    return patches
