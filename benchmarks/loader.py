"""What a training batch costs: resident and augmented at once, or loaded image by image.

    python -m benchmarks.loader           (about three minutes)

A batch is 128 of CIFAR-10's images, shifted by up to 4 pixels, flipped and normalised; then also
mixed by Random PatchMix. The peer is torchvision's usual way, PIL images through a DataLoader with
0 and with 2 workers. All take turns, some batches each; medians over the turns. One thread apart
from the workers. Writes benchmarks/loader.json.
"""

from collections.abc import Callable, Iterator
from statistics import median
from time import perf_counter
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from benchmarks.measuring import publish, settle
from mixbench.contract import Backbone, ClassIndex, Step
from mixbench.contract.loading import load_method, load_task
from mixbench.registry.units import find
from mixbench.streams import generator
from mixbench.vision.images.augment import CropFlip
from mixbench.vision.images.splits import Normalization, ResidentSplit

NUMBER, SIZE, TURNS, BATCHES = 20_000, 128, 9, 40
MEAN, DEVIATION = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
Batches = Iterator[Tensor]


class Pictures(Dataset[tuple[Tensor, int]]):
    """The images as torchvision's CIFAR10 gives them, with its usual transforms."""

    def __init__(self, images: Tensor, targets: Tensor, *, augment: bool = True) -> None:
        self.images = images.permute(0, 2, 3, 1).numpy()
        self.targets = targets.tolist()
        change = [v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip()] if augment else []
        scale = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, DEVIATION)]
        self.transform = v2.Compose([*change, *scale])

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, item: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[item])), self.targets[item]


def loaded(pictures: Pictures, workers: int) -> Batches:
    """Yield batches of a DataLoader for ever."""
    loader = DataLoader(
        pictures, SIZE, shuffle=True, num_workers=workers, persistent_workers=workers > 0
    )
    while True:
        for images, _ in loader:
            if len(images) == SIZE:
                yield images


def resident(split: ResidentSplit) -> Batches:
    """Yield batches as training reads them, for ever."""
    step = 0
    while True:
        index = torch.randint(NUMBER, (SIZE,), generator=generator(0, "order", step))
        yield split.read(index, generator(0, "augment", step))
        step += 1


def mixed(split: ResidentSplit) -> Batches:
    """Yield the same batches, mixed by Random PatchMix, for ever."""
    method = load_method(find("method", "random_patchmix"))()
    task, model, targets = load_task(find("task", "cifar10"))(), Backbone(), split.targets
    for number, images in enumerate(resident(split)):
        rng = generator(0, "mix", number)
        step = Step(images, targets[:SIZE], rng=rng, task=task, model=model, split=split)
        yield method.mix(images, step)[0]


def seconds(batches: Batches) -> float:
    """Return the mean time of a batch."""
    start = perf_counter()
    for _ in range(BATCHES):
        next(batches)
    return (perf_counter() - start) / BATCHES


def check_equal(split: ResidentSplit, pictures: Pictures) -> float:
    """Return how far apart the two ways are where nothing is drawn."""
    index = torch.arange(256)
    theirs = torch.stack([pictures[item][0] for item in index.tolist()])
    return float((split.read(index, None) - theirs).abs().max())


def main() -> None:
    """Measure, print and write."""
    settle()
    rng = generator(0, "synthetic")
    images = torch.randint(256, (NUMBER, 3, 32, 32), generator=rng, dtype=torch.uint8)
    targets = torch.randint(10, (NUMBER,), generator=rng)
    pixels = Normalization(MEAN, DEVIATION)
    split = ResidentSplit(images, targets, ClassIndex(targets, 10), pixels, CropFlip(4, flip=0.5))
    pictures = Pictures(images, targets)
    ways: dict[str, Callable[[], Batches]] = {
        "resident": lambda: resident(split),
        "resident_mixed": lambda: mixed(split),
        "pil_0_workers": lambda: loaded(pictures, 0),
        "pil_2_workers": lambda: loaded(pictures, 2),
    }
    difference = check_equal(split, Pictures(images, targets, augment=False))
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(TURNS + 1):
        for name, way in ways.items():
            running = way()
            next(running)  # starts the workers
            taken = seconds(running)
            if turn:  # the first one warms up
                times[name].append(1e3 * taken)
            del running
    added = [m / r for m, r in zip(times["resident_mixed"], times["resident"], strict=True)]
    ms = {name: median(values) for name, values in times.items()}
    results: dict[str, Any] = {
        "batch": SIZE,
        "largest_difference_of_pixels": difference,
        "ms_per_batch": ms,
        "times_faster_than_0_workers": ms["pil_0_workers"] / ms["resident"],
        "times_faster_than_2_workers": ms["pil_2_workers"] / ms["resident"],
        "mixed_times_faster_than_0_workers": ms["pil_0_workers"] / ms["resident_mixed"],
        "mixed_times_faster_than_2_workers": ms["pil_2_workers"] / ms["resident_mixed"],
        "mixing_adds_percent": 100 * (median(added) - 1),
    }
    publish("loader", results)


if __name__ == "__main__":
    main()
