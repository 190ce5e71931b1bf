"""What a training batch costs: resident and augmented at once, or loaded image by image.

    python -m benchmarks.loader           (about four minutes)

A batch is 128 of CIFAR-10's images, shifted by up to 4 pixels, flipped and normalised; then also
mixed by Random PatchMix. The peer is torchvision's usual way, PIL images through a DataLoader with
0 and with 2 workers. All take turns, some batches each; medians over the turns. One thread apart
from the workers.

Then photographs in JPEG files of 500x375 pixels, of which random windows are resized to 224 pixels
and flipped: read as torchvision usually does (PIL, RandomResizedCrop, flip), with torchvision's own
decoder and transforms of tensors, as training reads files, and as it reads images packed at 256.
One core, one image at a time, files in memory. `decode_only` is the floor of every way that decodes
whole images. Writes benchmarks/loader.json.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.io import decode_jpeg
from torchvision.transforms import v2

from benchmarks.measuring import in_turns, publish, settle
from mixbench.contract import Backbone, ClassIndex, Normalization, Step
from mixbench.contract.loading import load_method, load_task
from mixbench.registry.units import find
from mixbench.streams import generator
from mixbench.vision.images.augment import CropFlip, ResizedCropFlip
from mixbench.vision.images.decode import read_image
from mixbench.vision.images.packs import Pack, write_pack
from mixbench.vision.images.splits import ResidentSplit

NUMBER, SIZE, TURNS, BATCHES, PHOTOGRAPHS = 20_000, 128, 9, 40, 64
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


def photographs(folder: Path) -> list[Path]:
    """Write windows of the two photographs of scikit-learn as JPEG files; return their paths."""
    from sklearn.datasets import load_sample_images

    rng, paths = generator(0, "synthetic"), []
    for item in range(PHOTOGRAPHS):
        whole = load_sample_images().images[item % 2]
        top, left = (
            int(torch.randint(side - size + 1, (), generator=rng))
            for side, size in zip(whole.shape, (375, 500), strict=False)
        )
        paths.append(folder / "train" / f"{item:03}.jpg")
        paths[-1].parent.mkdir(exist_ok=True)
        window = np.ascontiguousarray(whole[top : top + 375, left : left + 500])
        Image.fromarray(window).save(paths[-1], quality=90)
    return paths


def jpeg_ways(folder: Path) -> dict[str, Callable[[int], object]]:
    """Return ways to read one augmented photograph, by name."""
    paths = photographs(folder)
    write_pack(folder, paths, 256, "", lambda _done, _of: None)
    pack = Pack(folder, 256)
    rows = pack.rows_of([bytes(path) for path in paths]).tolist()
    augment = ResizedCropFlip(224)
    draws = augment.draw(len(paths), generator(0, "augment"))
    usual = v2.Compose([v2.RandomResizedCrop(224), v2.RandomHorizontalFlip(), v2.PILToTensor()])
    of_tensors = v2.Compose([v2.RandomResizedCrop(224), v2.RandomHorizontalFlip()])

    def torchvision_pil(item: int) -> object:
        with Image.open(paths[item]) as image:
            return usual(image.convert("RGB"))

    return {
        "torchvision_pil": torchvision_pil,
        "torchvision_tensor": lambda item: of_tensors(
            decode_jpeg(torch.frombuffer(bytearray(paths[item].read_bytes()), dtype=torch.uint8))
        ),
        "files": lambda item: augment.crop(read_image(paths[item]), draws[item]),
        "packed_256": lambda item: augment.crop(pack.read(rows[item]), draws[item]),
        "decode_only": lambda item: read_image(paths[item]),
    }


def ms_per_photograph() -> dict[str, float]:
    """Return the median time of each way to read a photograph."""

    def of_all(read: Callable[[int], object]) -> None:
        for item in range(PHOTOGRAPHS):
            read(item)

    with TemporaryDirectory() as name:
        ways = {way: partial(of_all, read) for way, read in jpeg_ways(Path(name)).items()}
        times = in_turns(ways, TURNS)
    return {way: 1e3 * median(values) / PHOTOGRAPHS for way, values in times.items()}


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
        "jpeg_ms_per_image": (jpeg := ms_per_photograph()),
        "jpeg_times_faster_than_torchvision": {
            way: jpeg["torchvision_pil"] / value for way, value in jpeg.items()
        },
    }
    publish("loader", results)


if __name__ == "__main__":
    main()
