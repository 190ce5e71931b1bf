"""Generated images of textured objects on cluttered backgrounds, for tests and quick runs.

An object has a shape, a texture and a colour. A class is one combination of the three, and classes
share shapes, textures and colours, so that no single property identifies a class. Objects vary in
position, size, rotation, hue and brightness. The background has smooth colours and grey clutter.
The class, bounding box and class name of every object are known and serve as annotations.
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
HUE_SPREAD = 0.035  # standard deviation of an object's hue; neighbouring colours are 1/12 apart
DEBRIS = 6  # grey shapes on each background
QUALITY = 92  # JPEG quality of written files
CHUNK_PIXELS = 1 << 21  # number of pixels painted at once


class Look(NamedTuple):
    """Appearance that all objects of a class share.

    Attributes
    ----------
    shape
        Index into SHAPES.
    texture
        Index into TEXTURES.
    colour
        Index into COLOURS.
    """

    shape: int
    texture: int
    colour: int

    @property
    def name(self) -> str:
        """Name of the class, such as ``red striped disc``."""
        return f"{COLOURS[self.colour]} {[*TEXTURES][self.texture]} {SHAPES[self.shape]}"


def looks(number: int, *, birds: bool = False) -> list[Look]:
    """Return the first `number` classes of generated objects; a longer list extends a shorter one.

    Parameters
    ----------
    number
        Number of classes.
    birds
        Whether the objects are birds instead of geometric figures.

    Raises
    ------
    BadParameter
        If `number` is less than 1 or greater than the number of available classes.
    """
    shapes = range(len(FIGURES), len(SHAPES)) if birds else range(len(FIGURES))
    sizes = len(shapes), len(TEXTURES), len(COLOURS)
    most = math.prod(sizes)
    if not 1 <= number <= most:
        raise BadParameter(f"classes must be in 1..{most} for generated images (got {number}).")
    order = torch.randperm(most, generator=generator(0, "synthetic")).tolist()
    every = [Look(*parts) for parts in product(*map(range, sizes))]
    # A few classes share a few shapes, textures and colours, so that none identifies a class.
    chosen = sorted((every[place] for place in order), key=max)[:number]
    return [look._replace(shape=shapes[look.shape]) for look in chosen]


@dataclass
class Layout:
    """Placement of objects in B scenes of up to n objects each.

    Attributes
    ----------
    looks : (B, n) int64
        Index of each object's class in a list of classes; -1 for no object.
    centres : (B, n, 2) float32
        Row and column of each object's centre, as fractions of the image's height and width.
    radii : (B, n) float32
        Radius of each object, as a fraction of the image's shorter side.
    """

    looks: Tensor
    centres: Tensor
    radii: Tensor

    def __len__(self) -> int:
        return len(self.looks)

    def rows(self, start: int, stop: int) -> "Layout":
        """Return the scenes from `start` up to, but not including, `stop`."""
        return Layout(self.looks[start:stop], self.centres[start:stop], self.radii[start:stop])


class Painted(NamedTuple):
    """Painted scenes.

    Attributes
    ----------
    images : (B, 3, H, W) uint8
        RGB image of each scene.
    boxes : (B, n, 4) float32
        Left, top, width and height in pixels of the visible part of each object; all 0 if none of
        the object is visible.
    masks : (B, n, H, W) bool
        Visible pixels of each object.
    """

    images: Tensor
    boxes: Tensor
    masks: Tensor


def shuffled_classes(number: int, per_class: int, rng: torch.Generator) -> Tensor:
    """Return each of `number` classes `per_class` times in random order, int64.

    Parameters
    ----------
    number
        Number of classes.
    per_class
        Number of items per class.
    rng
        Random generator of the order.

    Returns
    -------
    classes : (number * per_class,) int64
        Class index of each item.
    """
    classes = torch.arange(number).repeat(per_class)
    return classes[torch.randperm(len(classes), generator=rng)]


def one_thing(
    classes: Tensor, rng: torch.Generator, radius: tuple[float, float] = (0.2, 0.38)
) -> Layout:
    """Return scenes with one object each, which lies entirely in the image.

    Parameters
    ----------
    classes : (B,) int64
        Class index of the object in each scene.
    rng
        Random generator of positions and radii.
    radius
        Range of the radius, as a fraction of the image's shorter side.
    """
    return _anywhere(classes[:, None], rng, radius)


def several_things(number: int, kinds: int, rng: torch.Generator, most: int = 3) -> Layout:
    """Return scenes with 1 to `most` objects each, of distinct classes, entirely in the image.

    Parameters
    ----------
    number
        Number of scenes.
    kinds
        Number of classes to draw from.
    rng
        Random generator of classes, positions and radii.
    most
        Maximum number of objects per scene.
    """
    looks_ = torch.rand(number, kinds, generator=rng).argsort(1)[:, :most]
    count = torch.randint(1, most + 1, (number, 1), generator=rng)
    looks_ = torch.where(torch.arange(looks_.shape[1]) < count, looks_, -1)
    return _anywhere(looks_, rng, (0.16, 0.3))


def _anywhere(looks_: Tensor, rng: torch.Generator, radius: tuple[float, float]) -> Layout:
    """Return scenes with the given objects, (B, n), at random positions inside the image."""
    draws = torch.rand(3, *looks_.shape, generator=rng)
    radii = radius[0] + draws[0] * (radius[1] - radius[0])
    centres = radii[..., None] + draws[1:].permute(1, 2, 0) * (1 - 2 * radii[..., None])
    return Layout(looks_, centres, radii)


def paint(
    layout: Layout, kinds: list[Look], size: tuple[int, int], rng: torch.Generator
) -> Iterator[Painted]:
    """Yield the painted scenes in order, in batches.

    Parameters
    ----------
    layout
        Placement of the objects.
    kinds
        List of classes that ``layout.looks`` indexes.
    size : pixels
        Height and width of the images.
    rng
        Random generator of everything that `layout` does not determine.
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
    masks: Sequence[Path] = (),
) -> Tensor:
    """Write the painted scenes to image files, and all objects of each scene to a file of `masks`.

    Returns
    -------
    boxes : (B, n, 4)
        Boxes of the objects, as of `Painted`.
    """
    boxes, start = [torch.zeros(0, 1, 4)] if not paths else [], 0
    for painted in paint(layout, kinds, size, rng):
        for path, image in zip(paths[start:], painted.images, strict=False):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(path, quality=QUALITY)
        for path, mask in zip(masks[start:], painted.masks.any(1), strict=False):
            Image.fromarray(mask.byte().mul(255).numpy()).save(path)
        boxes.append(painted.boxes)
        start += len(painted.images)
    return torch.cat(boxes)


def _paint(
    layout: Layout, kinds: list[Look], size: tuple[int, int], rng: torch.Generator
) -> Painted:
    """Paint backgrounds with clutter, then the objects in order, each over the earlier ones."""
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
    masks = torch.stack(seen, 1)
    return Painted(pixels, torch.stack([_boxes(mask) for mask in seen], 1), masks)


def _grounds(number: int, size: tuple[int, int], rng: torch.Generator) -> Tensor:
    """Return backgrounds of smooth colours with grey clutter, (B, 3, H, W) in [0, 1]."""
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
    """Return a light and a dark colour near each hue, (B, 3) in [0, 1] each."""
    draws = torch.randn(3, len(colour), generator=rng)
    hue = colour / len(COLOURS) + HUE_SPREAD * draws[0]
    # Convert HSV to RGB: each channel is a shifted and clipped triangle wave of the hue.
    wave = ((hue[:, None] * 6 + torch.tensor([0.0, 4.0, 2.0])) % 6 - 3).abs() - 1
    pure = wave.clamp(0, 1)
    saturation = (0.65 + 0.12 * draws[1]).clamp(0.3, 0.95)[:, None]
    value = (0.85 + 0.08 * draws[2]).clamp(0.5, 1)[:, None]
    light = value * (1 - saturation * (1 - pure))
    return light, 0.35 * light


def _boxes(seen: Tensor) -> Tensor:
    """Return left, top, width and height of each visible mask, (B, 4); 0 if it is empty."""
    corners = []
    for axis in (1, 2):
        along = seen.any(axis).float()  # per column, then per row
        length = along.shape[1]
        first = along.argmax(1)
        last = length - along.flip(1).argmax(1)
        corners.append((first, last - first))
    (left, width), (top, height) = corners
    boxes = torch.stack([left, top, width, height], 1).float()
    return boxes * seen.flatten(1).any(1)[:, None]
