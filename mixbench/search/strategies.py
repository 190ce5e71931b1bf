"""Search strategies for pairs and masks: genetic, direct, random and fixed."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import JsonValue
from torch import Tensor

from mixbench.contract import Backbone, Method, Preparation
from mixbench.errors import UsageError
from mixbench.search.direct import solve
from mixbench.search.evolve import evolve
from mixbench.search.fitness import HeldOut, Scorer
from mixbench.search.genetic import Settings
from mixbench.search.result import SearchResult, from_file, to_json
from mixbench.search.space import Space
from mixbench.storage.files import write_bytes
from mixbench.streams import stream_seed

RESULT = "search.json"


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
        Settings of the genetic search; ``direct`` uses only `Settings.maximise`.
    """

    strategy: str
    file: Path
    by_loss: bool
    image_pairs: int
    settings: Settings


def run_search(search_config: SearchConfig, space: Space, preparation: Preparation) -> SearchResult:
    """Return pairs and masks, and write them to search.json among the stage's results."""
    names = preparation.task.class_names(preparation.folder)
    seed = stream_seed(preparation.seed, "search")
    facts: dict[str, JsonValue] = {"search": search_config.strategy}
    if search_config.strategy == "fixed":
        found = from_file(search_config.file, space.grid, space.num_classes, names)
    elif search_config.strategy == "random":
        found = random_pairs(space, seed)
    else:
        scorer = make_scorer(search_config, space, preparation)
        if search_config.strategy == "genetic":
            found = evolve(
                space, search_config.settings, scorer, seed, preparation.scratch, preparation.report
            )
        else:
            found = solve(
                space,
                scorer,
                seed,
                maximise=search_config.settings.maximise,
                report=preparation.report,
            )
        facts |= {
            "score": "patch loss" if search_config.by_loss else "patch accuracy",
            "goal": "max" if search_config.settings.maximise else "min",
            "requests": scorer.num_requests,
            "distinct": scorer.num_items,
            "forwards": scorer.num_forwards,
        }
    text = to_json(found, space, names, facts)
    write_bytes(preparation.results / RESULT, text.encode())
    return found


def random_pairs(space: Space, seed: int) -> SearchResult:
    """Return random pairs with random masks, the control for a guided search."""
    rng = np.random.default_rng([seed])
    ranks = rng.choice(space.num_cross, space.num_pairs, replace=False)
    ids = np.concatenate([space.cross(ranks), space.same])
    return SearchResult(
        ids, rng.integers(space.full, size=len(ids), dtype=space.dtype, endpoint=True)
    )


def make_scorer(search_config: SearchConfig, space: Space, preparation: Preparation) -> Scorer:
    """Return a scorer that applies the phase-1 model to images held out of its training.

    Raises
    ------
    UsageError
        If the task has no classes.
    """
    model, method = preparation.trained["scorer"]
    task, device = preparation.task, preparation.device
    split = task.load("validation", preparation.folder, preparation.seed)
    if split.by_class is None:
        raise UsageError("The search needs a task with one class per image; choose another task.")
    images = split.read(torch.arange(len(split)), None).to(device)
    held_out = HeldOut(images, split.by_class, search_config.image_pairs, preparation.seed)
    return Scorer(space, held_out, patch_logits(model, method), by_loss=search_config.by_loss)


def patch_logits(model: Backbone, method: Method) -> Callable[[Tensor], Tensor]:
    """Return a function from images to the logits of their patches, using channels-last memory.

    Parameters
    ----------
    model
        The trained model that returns feature maps.
    method
        A PatchMix method, whose `patches` classifies the cells of a feature map.
    """
    model = model.to(memory_format=torch.channels_last)

    def patches(x: Tensor) -> Tensor:
        features = model(x.contiguous(memory_format=torch.channels_last)).features
        logits: Tensor = method.patches(features)  # type: ignore[operator]
        return logits

    return patches
