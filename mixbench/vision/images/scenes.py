"""Generated pictures of textured shapes on cluttered grounds, for tests and for quick runs.

A thing has a shape, a texture and a colour; a class of things is one combination of the three, and
classes share each of them, so that no single one tells a class. Things vary in place, size, turn,
hue and light, and stand before a ground of soft colours and grey debris. Everything that later
annotates a picture is known: every thing's class, box and name.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from mixbench.errors import BadParameter
from mixbench.streams import generator
from mixbench.vision.images.shapes import FIGURES, SHAPES, TEXTURES, outline

COLOURS = (
    "red", "orange", "yellow", "lime", "green", "mint", "cyan", "azure", "blue", "violet",
    "magenta", "rose",
)  # fmt: skip
HUE_SPREAD = 0.035  # deviation of a thing's hue: neighbours are 1/12 apart
DEBRIS = 6  # grey shapes on a ground
QUALITY = 92  # of JPEG files
CHUNK_PIXELS = 1 << 21  # painted at once


class Look(NamedTuple):
    """What all things of a class have in common: positions in SHAPES, TEXTURES and COLOURS."""

    shape: int
    texture: int
    colour: int

    @property
    def name(self) -> str:
        """What people call it."""
        return f"{COLOURS[self.colour]} {[*TEXTURES][self.texture]} {SHAPES[self.shape]}"


def looks(number: int, *, birds: bool = False) -> list[Look]:
    """Return the first so many classes of things; a longer list begins with the shorter one.

    Parameters
    ----------
    birds
        Whether the things are birds, instead of figures.

    Raises
    ------
    BadParameter
        If there are not that many.
    """
    shapes = range(len(FIGURES), len(SHAPES)) if birds else range(len(FIGURES))
    sizes = len(shapes), len(TEXTURES), len(COLOURS)
    most = math.prod(sizes)
    if not 1 <= number <= most:
        raise BadParameter(f"There are {most} kinds of generated things (got classes={number}).")
    order = torch.randperm(most, generator=generator(0, "synthetic")).tolist()
    every = [Look(*parts) for parts in product(*map(range, sizes))]
    # Few shapes, textures and colours for few classes, so that none of them tells much.
    chosen = sorted((every[place] for place in order), key=max)[:number]
    return [look._replace(shape=shapes[look.shape]) for look in chosen]


@dataclass
class Layout:
    """Which things stand where in B scenes of up to n things each.

    Attributes
    ----------
    looks : (B, n) int64
        Positions in a list of classes; -1 where there is no thing.
    centres : (B, n, 2) float32
        Rows and columns, in parts of the image's sides.
    radii : (B, n) float32
        In parts of the image's shorter side.
    """

    looks: Tensor
    centres: Tensor
    radii: Tensor

    def __len__(self) -> int:
        return len(self.looks)

    def rows(self, start: int, stop: int) -> "Layout":
        """Return some of the scenes."""
        return Layout(self.looks[start:stop], self.centres[start:stop], self.radii[start:stop])


class Painted(NamedTuple):
    """Scenes as pictures.

    Attributes
    ----------
    images : (B, 3, H, W) uint8
    boxes : (B, n, 4) float32
        Left, top, width and height in pixels of what can be seen of each thing; 0 if nothing.
    """

    images: Tensor
    boxes: Tensor


def shuffled_classes(number: int, per_class: int, rng: torch.Generator) -> Tensor:
    """Return so many items of every class in random order, (number * per_class,) int64."""
    classes = torch.arange(number).repeat(per_class)
    return classes[torch.randperm(len(classes), generator=rng)]


def one_thing(
    classes: Tensor, rng: torch.Generator, radius: tuple[float, float] = (0.2, 0.38)
) -> Layout:
    """Return scenes of one thing each, anywhere that it fits, of the given classes, (B,)."""
    return _anywhere(classes[:, None], rng, radius)


def several_things(number: int, kinds: int, rng: torch.Generator, most: int = 3) -> Layout:
    """Return scenes of one to `most` things each, of different classes, anywhere that they fit."""
    looks_ = torch.rand(number, kinds, generator=rng).argsort(1)[:, :most]
    count = torch.randint(1, most + 1, (number, 1), generator=rng)
    looks_ = torch.where(torch.arange(looks_.shape[1]) < count, looks_, -1)
    return _anywhere(looks_, rng, (0.16, 0.3))


def _anywhere(looks_: Tensor, rng: torch.Generator, radius: tuple[float, float]) -> Layout:
    """Return scenes of these things, (B, n), each wherever it fits."""
    draws = torch.rand(3, *looks_.shape, generator=rng)
    radii = radius[0] + draws[0] * (radius[1] - radius[0])
    centres = radii[..., None] + draws[1:].permute(1, 2, 0) * (1 - 2 * radii[..., None])
    return Layout(looks_, centres, radii)


def paint(
    layout: Layout, kinds: list[Look], size: tuple[int, int], rng: torch.Generator
) -> Iterator[Painted]:
    """Yield the pictures of the scenes, some at a time, in order.

    Parameters
    ----------
    kinds
        The classes that `layout` counts in.
    size : pixels
        Height and width.
    """
    step = max(CHUNK_PIXELS // (size[0] * size[1]), 1)
    for start in range(0, len(layout), step):
        yield _paint(layout.rows(start, start + step), kinds, size, rng)


def write_images(
    paths: Sequence[Path],
    layout: Layout,
    kinds: list[Look],
    size: tuple[int, int],
    rng: torch.Generator,
) -> Tensor:
    """Write the pictures of the scenes as image files; return their boxes, (B, n, 4)."""
    boxes, start = [], 0
    for painted in paint(layout, kinds, size, rng):
        for path, image in zip(paths[start:], painted.images, strict=False):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(path, quality=QUALITY)
        boxes.append(painted.boxes)
        start += len(painted.images)
    return torch.cat(boxes)


def _paint(
    layout: Layout, kinds: list[Look], size: tuple[int, int], rng: torch.Generator
) -> Painted:
    """Paint grounds with debris, then thing after thing over them."""
    images = _grounds(len(layout), size, rng)
    table = torch.tensor(kinds)
    seen: list[Tensor] = []
    for place in range(layout.looks.shape[1]):
        look = table[layout.looks[:, place].clamp_min(0)]
        there = (layout.looks[:, place] >= 0)[:, None, None]
        cover, wave = outline(
            *(look[:, 0], look[:, 1]), layout.centres[:, place], layout.radii[:, place], size, rng
        )
        cover = cover * there
        front, back = _two_colours(look[:, 2], rng)
        paint_ = torch.lerp(back[..., None, None], front[..., None, None], wave[:, None])
        images = torch.lerp(images, paint_, cover[:, None])
        seen = [mask & (cover < 0.5) for mask in seen] + [cover >= 0.5]
    light = 0.75 + 0.5 * torch.rand(len(layout), 1, 1, 1, generator=rng)
    noise = 0.06 * torch.randn(images.shape, generator=rng)
    pixels = ((images * light + noise).clamp(0, 1) * 255).round().to(torch.uint8)
    return Painted(pixels, torch.stack([_boxes(mask) for mask in seen], 1))


def _grounds(number: int, size: tuple[int, int], rng: torch.Generator) -> Tensor:
    """Return grounds of soft colours with grey debris, (B, 3, H, W) in [0, 1]."""
    soft = torch.rand(number, 3, 4, 4, generator=rng)
    images = F.interpolate(soft, size, mode="bicubic", align_corners=False).clamp(0, 1)
    images = 0.25 + 0.5 * images
    for _ in range(DEBRIS):
        shape = torch.randint(len(FIGURES), (number,), generator=rng)
        texture = torch.randint(len(TEXTURES), (number,), generator=rng)
        centres = torch.rand(number, 2, generator=rng)
        radii = 0.05 + 0.13 * torch.rand(number, generator=rng)
        cover, wave = outline(shape, texture, centres, radii, size, rng)
        grey = 0.15 + 0.7 * torch.rand(number, 1, 1, 1, generator=rng)
        images = torch.lerp(images, grey * (0.6 + 0.4 * wave[:, None]), 0.8 * cover[:, None])
    return images


def _two_colours(colour: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return a light and a dark colour about each hue, (B, 3) in [0, 1]."""
    draws = torch.randn(3, len(colour), generator=rng)
    hue = colour / len(COLOURS) + HUE_SPREAD * draws[0]
    # Hue as three shifted and clipped waves, the usual way from HSV to RGB.
    wave = ((hue[:, None] * 6 + torch.tensor([0.0, 4.0, 2.0])) % 6 - 3).abs() - 1
    pure = wave.clamp(0, 1)
    saturation = (0.65 + 0.12 * draws[1]).clamp(0.3, 0.95)[:, None]
    value = (0.85 + 0.08 * draws[2]).clamp(0.5, 1)[:, None]
    light = value * (1 - saturation * (1 - pure))
    return light, 0.35 * light


def _boxes(seen: Tensor) -> Tensor:
    """Return left, top, width and height of what is seen, (B, 4); 0 where nothing is."""
    corners = []
    for axis in (1, 2):
        along = seen.any(axis).float()  # over the columns, then over the rows
        length = along.shape[1]
        first = along.argmax(1)
        last = length - along.flip(1).argmax(1)
        corners.append((first, last - first))
    (left, width), (top, height) = corners
    boxes = torch.stack([left, top, width, height], 1).float()
    return boxes * seen.flatten(1).any(1)[:, None]
