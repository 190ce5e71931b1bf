"""Synthetic images of birds on cluttered backgrounds, in the format of CUB-200-2011."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch

from mixbench.declare import Synthetic
from mixbench.streams import generator
from mixbench.vision.images.lists import write_lines
from mixbench.vision.images.scenes import looks, one_thing, write_images

from .files import FILES

SIZES = ((96, 72), (72, 96), (90, 90))  # widths and heights of images, in pixels
RADIUS = (0.14, 0.32)  # range of the birds' radii, as a fraction of the image's shorter side


def write_birds(root: Path, classes: int, amount: Synthetic, masks: Path | None = None) -> None:
    """Write images of birds of the given number of classes, and their annotation files.

    With a folder `masks`, write a mask for each image there as well.
    """
    kinds = looks(classes, birds=True)
    rng = generator(amount.seed, "synthetic")
    per_class = amount.train + amount.test
    labels = torch.arange(classes).repeat_interleave(per_class)
    words = [kind.name.title().replace(" ", "_") for kind in kinds]
    folders = [f"{number:03}.{word}" for number, word in enumerate(words, 1)]
    names = [
        f"{folders[c]}/{words[c]}_{i % per_class + 1:04}_{i + 1}.jpg"
        for i, c in enumerate(labels.tolist())
    ]
    for name in folders:
        for parent in (root / "images", *([masks] if masks else [])):
            (parent / name).mkdir(parents=True)
    boxes = torch.empty(len(names), 4)
    for number, (width, height) in enumerate(SIZES):
        some = slice(number, None, len(SIZES))
        paths = [root / "images" / name for name in names[some]]
        layout = one_thing(labels[some], rng, RADIUS)
        drawn = [(masks / name).with_suffix(".png") for name in names[some]] if masks else []
        boxes[some] = write_images(paths, layout, kinds, (height, width), rng, drawn)[:, 0]
    train = torch.arange(len(names)) % per_class < amount.train
    columns = (names, (labels + 1).tolist(), train.int().tolist(), boxes.tolist())
    for name, column in zip(FILES, columns, strict=True):
        texts = (" ".join(map(str, v)) if isinstance(v, list) else str(v) for v in column)
        write_lines(root / f"{name}.txt", numbered(texts))
    write_lines(root / "classes.txt", numbered(folders))


def numbered(texts: Iterable[str]) -> Iterator[str]:
    """Yield lines that begin with a running number, as in CUB's files."""
    yield from (f"{number} {text}" for number, text in enumerate(texts, 1))
