"""What the search costs against Algorithm 2 done plainly, one individual and one pair at a time.

    python -m benchmarks.search           population 100, 60 generations (about four minutes)
    python -m benchmarks.search --full    500, 250 generations as well, which later runs keep

A Random PatchMix model is trained on digits, then searched with the paper's setting (as many cross
pairs as classes, all same-class pairs forced). The plain evaluation is timed in turns with the
search, on two individuals of every generation, and scaled to all that the search evaluates; its
fitness values must equal the search's. Times are single-threaded. Writes benchmarks/search.json.
"""

import argparse
import copy
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.measuring import FOLDER, machine, publish, settle
from mixbench.contract import Trained
from mixbench.contract.loading import load_method, load_task
from mixbench.datasets.locate import locate
from mixbench.registry.units import find
from mixbench.search.direct import lowest_masks, solve, unordered_pairs
from mixbench.search.fitness import HeldOut, Scorer
from mixbench.search.genetic import Genetic, Settings, first_population
from mixbench.search.space import Ids, Masks, Space
from mixbench.search.strategies import patch_logits
from mixbench.train.checkpoints import DiskJournal
from mixbench.train.loop import train
from mixbench.train.setup import Setup

PER_PAIR = 64
SETTINGS = Settings(
    population=100, generations=60, crossover=0.5, mutation=0.3, tournament=3, patience=0,
    maximise=False, reading="dynamics", exchanged=1, budget=10**12,
)  # fmt: skip
FULL = replace(SETTINGS, population=500, generations=250)
PAPER = Space(num_classes=10, grid=4, num_pairs=10, same_class=True)
Patches = Callable[[torch.Tensor], torch.Tensor]


def trained_model(epochs: int, folder: Path) -> tuple[Trained, HeldOut]:
    """Return a Random PatchMix model of digits, and the images held out of its training."""
    card = find("task", "digits")
    task = load_task(card)()
    method = load_method(find("method", "random_patchmix"))()
    recipe = replace(card.declared.protocols["quick"], epochs=epochs)
    data = locate(card, None).folder
    assert data is not None
    setup = Setup(method, task, recipe.model, recipe, 0, data, torch.device("cpu"))
    run = train(setup, DiskJournal(folder, 10**9, lambda _: None))
    split = task.load("validation", data, 0)
    assert split.by_class is not None
    held_out = HeldOut.of(split, 0, torch.device("cpu"))
    return Trained(run.model.eval(), method.eval()), held_out


def plain_patches(trained: Trained) -> Patches:
    """Return the patch logits of images, as a plain loop would compute them."""
    model, patches = copy.deepcopy(trained.model), trained.method.patches
    return lambda x: patches(model(x).features)  # type: ignore[operator]


def fast_patches(trained: Trained) -> Patches:
    """Return the patch logits of images, as the search computes them."""
    return patch_logits(copy.deepcopy(trained.model), trained.method)


@torch.no_grad()
def plain_fitness(
    space: Space, held_out: HeldOut, patches: Patches, ids: NDArray[Any], masks: NDArray[Any]
) -> float:
    """Return the fitness of one individual as Algorithm 1 and 2 say it: pair by pair."""
    scores = []
    images = held_out.normalize(held_out.images)
    device, side = images.device, images.shape[-1] // space.grid
    for pair, cells in zip(ids.tolist(), space.bits(masks), strict=True):
        first, second = divmod(pair, space.num_classes)
        one, other = (
            torch.from_numpy(i.copy()) for i in held_out.image_pairs(first, second, PER_PAIR)
        )
        grid = torch.from_numpy(cells).to(device).view(space.grid, space.grid)
        mask = grid.repeat_interleave(side, 0).repeat_interleave(side, 1).float()
        mixed = images[one] * mask + images[other] * (1 - mask)
        target = torch.from_numpy(np.where(cells, first, second)).to(device)
        scores.append(float((patches(mixed).argmax(-1) == target).double().mean()))
    return float(np.mean(scores))


def compare(trained: Trained, held_out: HeldOut, settings: Settings) -> dict[str, Any]:
    """Run the search in turns with plain evaluations of some of its individuals."""
    patches = plain_patches(trained)
    scorer = Scorer(PAPER, held_out, fast_patches(trained), PER_PAIR, by_loss=False)
    search = Genetic(1, PAPER, settings, scorer)
    fast_s = plain_s = worst = 0.0
    compared = 0
    while not search.finished:
        start = perf_counter()
        search.step() if search.population else search.start()
        fast_s += perf_counter() - start
        for number in (0, len(search.population) // 2):
            individual = search.population[number]
            start = perf_counter()
            value = plain_fitness(PAPER, held_out, patches, individual.ids(PAPER), individual.masks)
            plain_s += perf_counter() - start
            worst = max(worst, abs(value - individual.fitness.values[0]))
            compared += 1
        if search.generation % 10 == 0:
            print(f"\r  generation {search.generation}", end="", file=sys.stderr)
    print(file=sys.stderr)
    evaluated = scorer.num_requests // (PAPER.num_pairs + len(PAPER.same))
    plain_all_s = plain_s / compared * evaluated
    return {
        "population": settings.population,
        "generations": settings.generations,
        "individuals_evaluated": evaluated,
        "plain_s": plain_all_s,
        "search_s": fast_s,
        "times_faster": plain_all_s / fast_s,
        "plain_forwards": scorer.num_requests * PER_PAIR,
        "search_forwards": scorer.num_forwards,
        "times_fewer_forwards": scorer.num_requests * PER_PAIR / scorer.num_forwards,
        "individuals_compared": compared,
        "largest_fitness_difference": worst,
        "best_fitness": search.best[0].fitness.values[0],
    }


def direct(trained: Trained, held_out: HeldOut, plain_s: float) -> dict[str, Any]:
    """Solve the same problem directly."""
    scorer = Scorer(PAPER, held_out, fast_patches(trained), PER_PAIR, by_loss=False)
    start = perf_counter()
    found = solve(PAPER, scorer, 1, unordered_pairs(PAPER), maximise=False, report=lambda *_: None)
    seconds = perf_counter() - start
    assert found.scores is not None
    return {
        "seconds": seconds,
        "times_faster_than_plain": plain_s / seconds,
        "forwards": scorer.num_forwards,
        "items_per_pair": scorer.num_items / (PAPER.num_cross / 2 + PAPER.num_classes),
        "fitness": float(found.scores.mean()),
    }


def no_network(ids: Ids, masks: Masks) -> NDArray[np.float64]:
    """Return scores that cost nothing."""
    return np.asarray((masks + ids.astype(np.float64)) % 97, np.float64)


def machinery(classes: int) -> dict[str, Any]:
    """Time 500 x 250 without a network, and weigh an individual."""
    space = Space(classes, 4, classes, same_class=True)
    search = Genetic(0, space, FULL, no_network)
    (individual,) = first_population(0, space, replace(FULL, population=1), search.fitness)
    generations = FULL.generations if classes <= 100 else 25
    start = perf_counter()
    search.start()
    for _ in range(generations):
        search.step()
    seconds = (perf_counter() - start) * FULL.generations / generations
    size = individual.pairs.nbytes + individual.masks.nbytes
    return {"classes": classes, "bytes_per_individual": size, "machinery_s": seconds}


def transfer(trained: Trained, held_out: HeldOut) -> dict[str, Any]:
    """Say how much of what is found on few image pairs is left on other ones: five classes."""
    some = Space(10, 4, 1)
    ids = np.array([i * 10 + j for i in range(5) for j in range(i + 1, 5)], np.int32)
    patches = fast_patches(trained)
    other = Scorer(some, replace(held_out, seed=99), patches, 128, by_loss=False)
    drawn = np.random.default_rng(5).integers(some.full, size=(32, len(ids)), dtype=some.dtype)
    random = float(other(np.tile(ids, (32, 1)), drawn).mean())
    rows = []
    for per_pair in (16, 32, 64, 128):
        scorer = Scorer(some, held_out, patches, per_pair, by_loss=False)
        masks, scores = lowest_masks(some, scorer, 1, ids)
        unseen = float(other(ids, masks).mean())
        kept = (random - unseen) / (random - float(scores.mean()))
        rows.append(
            {"image_pairs": per_pair, "found": float(scores.mean()), "on_others": unseen}
            | {"share_of_the_gain_kept": kept}
        )
    return {"random_masks": random, "best_masks": rows}


def earlier_full() -> dict[str, Any] | None:
    """Return what an earlier `--full` measured; it takes too long to be measured every time."""
    path = FOLDER / "search.json"
    found: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return found.get("full")


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--epochs", type=int, default=20, help="of the model that is searched")
    arguments = parser.parse_args()
    settle()
    with tempfile.TemporaryDirectory() as scratch:
        trained, held_out = trained_model(arguments.epochs, Path(scratch))
    compare(trained, held_out, replace(SETTINGS, population=20, generations=3))  # warm up
    results: dict[str, Any] = {"image_pairs_per_class_pair": PER_PAIR}
    results["search"] = compare(trained, held_out, SETTINGS)
    results["machinery"] = [machinery(classes) for classes in (10, 100, 200, 1000)]
    results["full"] = earlier_full()
    if arguments.full:
        full = {"machine": machine(), **compare(trained, held_out, FULL)}
        full["direct"] = direct(trained, held_out, full["plain_s"])
        results["full"] = {**full, "transfer": transfer(trained, held_out)}
    publish("search", results)


if __name__ == "__main__":
    main()
