"""What Guided PatchMix and ImageNet cost at the paper's size, counted and measured on two cores.

    python -m benchmarks.scale            (under ten minutes)

- Memory of the held-out images that a search composes, at 224 pixels.
- Images that the searches score with 10 to 1,000 classes, and the share of the possible gain that
  they find, on a landscape whose optimum is known (benchmarks/landscape.py). Scores are the hits of
  patches, drawn from 64 images; the share is of the true scores.
- Whole training steps of Guided PatchMix on photographs in JPEG files, read by two workers, beside
  steps of Random PatchMix, and beside such steps for which as many images are decoded.
- Hours of Table 2's ImageNet column, computed from the images of the plan and an assumed speed.

Writes benchmarks/scale.json.
"""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from benchmarks.landscape import Landscape
from benchmarks.loader import photographs
from benchmarks.measuring import publish, settle
from benchmarks.search import FULL
from mixbench.contract import Backbone, ClassIndex, Draws, Method, Sources, Step
from mixbench.contract.loading import load_method
from mixbench.declare import Recipe
from mixbench.leaderboard.suite import folder_of, suite_cells
from mixbench.plan.graph import plan
from mixbench.plan.workload import workloads
from mixbench.registry.units import find
from mixbench.search.direct import pairs_within, screened, solve, unordered_pairs
from mixbench.search.fitness import HeldOut
from mixbench.search.genetic import Genetic
from mixbench.search.space import Space
from mixbench.streams import generator
from mixbench.testing import ToyTask
from mixbench.train.checkpoints import DiskJournal
from mixbench.train.loop import train
from mixbench.train.setup import Setup
from mixbench.vision.images.augment import ResizedCropFlip, central
from mixbench.vision.images.splits import IMAGENET_NORMALIZATION, StreamedSplit
from mixbench.vision.models.build import sized
from mixbench.vision.models.residual import ResidualNet

CLASSES, PER_PAIR = (10, 100, 200, 1000), 64
BUDGETS = {10: 6_000_000, 100: 6_000_000, 200: 12_000_000, 1000: 80_000_000}
BATCH, STEPS, TURNS, SIDE = 64, 12, 4, 224
# Training of ResNet-50 in mixed precision on one A100: NVIDIA/DeepLearningExamples, PyTorch
# classification, resnet50v1.5 README. A forward pass is counted as a third of a training step.
IMAGES_PER_S, FORWARD = 2470.0, 1 / 3
RandomPatchMix: Any = load_method(find("method", "random_patchmix"))


def memory_per_image(folder: Path) -> float:
    """Return the kilobytes that a held-out image of 224 pixels takes, wherever it lies."""
    split = from_files(folder)
    held_out = HeldOut.of(split, 0, torch.device("cpu"))
    return held_out.images.nbytes / len(split) / 1e3


def from_files(folder: Path) -> StreamedSplit:
    """Return a split of photographs of two classes."""
    paths = photographs(folder)
    classes = torch.arange(len(paths)) % 2
    return StreamedSplit(
        paths, classes, ClassIndex(classes, 2), IMAGENET_NORMALIZATION, ResizedCropFlip(SIDE),
        fit=central(SIDE),
    )  # fmt: skip


def genetic(classes: int) -> dict[str, float]:
    """Run the genetic search with the paper's population and generations."""
    space = Space(classes, 4, classes)
    landscape = Landscape(space, PER_PAIR)
    search = Genetic(1, space, replace(FULL, budget=10**12), landscape)
    search.start()
    first = [x.pairs for x in search.population]
    while not search.finished:
        search.step()
    best = search.best[0]
    left = max(int(sum(p in set(pairs.tolist()) for p in best.pairs.tolist())) for pairs in first)
    return {
        "images": landscape.num_forwards,
        "share": landscape.share(best.ids(space), best.masks),
        "first_pairs": left / classes,
    }


def direct(classes: int) -> dict[str, float]:
    """Run the direct search within a budget."""
    space = Space(classes, 4, classes)
    landscape = Landscape(space, PER_PAIR)
    number, pairs = pairs_within(space, PER_PAIR, BUDGETS[classes]), unordered_pairs(space)
    if number < len(pairs):
        pairs = screened(space, landscape.screen, 0, number, maximise=False)
    found = solve(space, landscape, 0, pairs, maximise=False, report=lambda *_: None)
    return {
        "images": landscape.num_forwards,
        "share": landscape.share(found.ids, found.masks),
        "budget": BUDGETS[classes],
    }


class DecodesMore(RandomPatchMix):  # type: ignore[misc]
    """Random PatchMix for which as many images are decoded as for Guided PatchMix."""

    def draws(self, size: int, rng: torch.Generator) -> Draws:  # noqa: ARG002  # the contract
        """Announce a third of a batch more than it uses."""
        return Draws(torch.zeros(round(size / 3), dtype=torch.long), torch.zeros(size).bool())

    def mix(self, x: Tensor, step: Step) -> tuple[Tensor, Sources]:
        """Draw, and mix without what was drawn."""
        step.draw(torch.zeros(round(len(x) / 3), dtype=torch.long))
        mixed: tuple[Tensor, Sources] = super().mix(x, step)
        return mixed


class Photographs(ToyTask):
    """The photographs, in training with a small network."""

    image_size = (SIDE, SIDE)
    num_classes = 2

    def __init__(self, split: StreamedSplit) -> None:
        super().__init__()
        self.split = split

    def build(self, model: str) -> Backbone:  # noqa: ARG002  # there is only one
        """Return a network that takes less time than decoding its images."""
        return sized(ResidualNet(8, channels=3, classes=2, strides=(2, 2, 2)), 3, self.image_size)

    @property
    def has_validation(self) -> bool:
        """Nothing is held out."""
        return False

    def load(self, part: Any, folder: Path, seed: int) -> Any:  # noqa: ARG002  # one split
        """Return a few epochs of the photographs as one."""
        return self.split


def steps(method: Method, split: StreamedSplit, work: Path) -> list[float]:
    """Return the seconds of training steps as the harness trains, with two workers."""
    work.mkdir()
    recipe = Recipe(
        model="toy", epochs=STEPS, batch_size=BATCH, precision="bfloat16", tail=1,
        memory_format="channels_last", threads=1,
    )  # fmt: skip
    setup = Setup(
        method, Photographs(split), "toy", recipe, 0, Path(), torch.device("cpu"), workers=2
    )
    journal, times = DiskJournal(work, 10**9, lambda _: None), [perf_counter()]
    journal.each_step.append(lambda: times.append(perf_counter()))
    train(setup, journal)
    return [after - before for before, after in pairwise(times)][3:]  # after the workers' start


def guided() -> Method:
    """Return Guided PatchMix, as after a search."""
    method: Method = load_method(find("method", "guided_patchmix"))(search="random")
    give_pairs(method)
    return method


def give_pairs(method: Method) -> None:
    """Give Guided PatchMix two pairs of the first two classes, as if a search had found them."""
    method.register_buffer("pairs", torch.tensor([[0, 1], [1, 0]]))
    masks = torch.rand(2, 16, generator=generator(0, "synthetic")) < 0.5
    method.register_buffer("masks", masks)


def step_ratios(folder: Path) -> dict[str, float]:
    """Return the time of a guided step, and its ratio to steps of Random PatchMix."""
    split = from_files(folder)
    times: dict[str, list[float]] = {name: [] for name in ("guided", "random", "decodes_more")}
    for turn in range(TURNS + 1):
        ways = {"guided": guided(), "random": RandomPatchMix(), "decodes_more": DecodesMore()}
        for name, method in ways.items():
            taken = steps(method, split, folder / f"{name}{turn}")
            if turn:
                times[name].append(median(taken))
    ms = {f"{name}_ms": 1e3 * median(values) for name, values in times.items()}
    ratios = {
        f"guided_to_{name}": median(
            a / b for a, b in zip(times["guided"], times[name], strict=True)
        )
        for name in ("random", "decodes_more")
    }
    return ms | ratios


def imagenet_hours() -> dict[str, float]:
    """Return the images of Table 2's ImageNet column, and the hours at an assumed speed."""
    cells = suite_cells(folder_of("paper_table2"), without_data=True)
    work = workloads(plan(cells, without_data=True))["imagenet", "resnet50"]
    forward = FORWARD * (work.searched + work.predicted)
    hours = (work.trained + forward) / IMAGES_PER_S / 3600
    return {
        "images_trained": work.trained,
        "images_searched_at_most": work.searched,
        "images_predicted": work.predicted,
        "assumed_images_per_s": IMAGES_PER_S,
        "hours_1_gpu": hours,
        "hours_8_gpus": hours / 8,
    }


def main() -> None:
    """Measure, print and write."""
    settle()
    with TemporaryDirectory() as name:
        folder = Path(name)
        results = {
            "held_out_kb_per_image": memory_per_image(folder),
            "steps": step_ratios(folder),
            "imagenet": imagenet_hours(),
            "genetic": {classes: genetic(classes) for classes in CLASSES},
            "direct": {classes: direct(classes) for classes in CLASSES},
        }
    publish("scale", results)


if __name__ == "__main__":
    main()
