"""Augmentations of single images. What is random is drawn first, for the whole batch at once.

A batch's draws are a tensor of numbers in [0, 1), one row for each image, so that an image can be
augmented anywhere, by the device in one batch or by another process by itself, with the same
result. Images are uint8, (C, H, W) or (B, C, H, W), until the colours are touched.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

MARGIN = 256 / 224  # of an image's side, or its short side, over what the model sees of it


class Augmentation(Protocol):
    """A random change of every image."""

    def draw(self, number: int, rng: torch.Generator) -> Tensor:
        """Return the draws for that many images, (number, n) float32 in [0, 1)."""
        ...

    def crop(self, image: Tensor, draws: Tensor) -> Tensor:
        """Return what is cut out of one image, uint8 (C, h, w), with its own draws, (n,)."""
        ...

    def color_jitter(self, images: Tensor, draws: Tensor) -> Tensor:
        """Return a batch with changed colours; float32 (B, C, h, w) in [0, 1]."""
        ...


@dataclass(frozen=True)
class CropFlip:
    """Shift by up to `padding` pixels each way, black where nothing was; flip with `flip`.

    Parameters
    ----------
    flip
        The probability of a mirror image.
    """

    padding: int
    flip: float = 0.0

    def draw(self, number: int, rng: torch.Generator) -> Tensor:
        """Draw a row, a column and a flip for each image."""
        return torch.rand(number, 3, generator=rng)

    def _places(self, draws: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the windows' first rows and columns, and who is flipped."""
        down, right = (draws[..., :2] * (2 * self.padding + 1)).long().unbind(-1)
        return down, right, draws[..., 2] < self.flip

    def crop(self, image: Tensor, draws: Tensor) -> Tensor:
        """Return one image's window."""
        height, width = image.shape[-2:]
        down, right, flip = self._places(draws)
        padded = F.pad(image, (self.padding,) * 4)
        window = padded[..., down : down + height, right : right + width]
        return window.flip(-1) if flip else window

    def crop_batch(self, images: Tensor, draws: Tensor) -> Tensor:
        """Return every image's window, without a loop over images."""
        size, channels, height, width = images.shape
        down, right, flip = (draw.to(images.device) for draw in self._places(draws))
        padded = F.pad(images, (self.padding,) * 4)
        stride = width + 2 * self.padding
        plane = (height + 2 * self.padding) * stride
        # A mirrored window is a window of the mirrored image. Every piece of a row, wherever it
        # begins, is a row of one table of overlapping rows, from which one call takes them all.
        pixels = torch.cat([padded, padded.flip(-1)]).flatten()
        pieces = pixels.as_strided((pixels.numel() - width + 1, width), (1, 1))
        image = torch.arange(size, device=images.device) + size * flip
        right = torch.where(flip, 2 * self.padding - right, right)
        first = image * (channels * plane) + down * stride + right
        rows = torch.arange(height, device=images.device) * stride
        inside = torch.arange(channels, device=images.device)[:, None] * plane + rows
        starts = (first[:, None] + inside.flatten()).flatten()
        return pieces.index_select(0, starts).view(images.shape)

    def color_jitter(self, images: Tensor, draws: Tensor) -> Tensor:  # noqa: ARG002  # the protocol
        """Return the images: colours stay."""
        return images


@dataclass(frozen=True)
class WindowFlip:
    """Resize to a square, whatever the image's shape; cut out a smaller one; flip half of them.

    Parameters
    ----------
    whole, size : pixels
        Sides of the two squares.
    """

    whole: int
    size: int

    def draw(self, number: int, rng: torch.Generator) -> Tensor:
        """Draw a row, a column and a flip for each image."""
        return torch.rand(number, 3, generator=rng)

    def crop(self, image: Tensor, draws: Tensor) -> Tensor:
        """Return the image's window."""
        top, left = (draws[:2] * (self.whole - self.size + 1)).long().tolist()
        square = resize(image, (self.whole, self.whole))
        cut = square[:, top : top + self.size, left : left + self.size]
        return cut.flip(-1) if draws[2] < 0.5 else cut  # half of them

    def color_jitter(self, images: Tensor, draws: Tensor) -> Tensor:  # noqa: ARG002  # the protocol
        """Return the images: colours stay."""
        return images


# Of ImageNet's colours (Krizhevsky et al., NIPS 2012, §4.1): deviations along the principal axes.
DEVIATIONS = (0.2175, 0.0188, 0.0045)
AXES = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))
GREY = (0.299, 0.587, 0.114)
TRIES = 10  # for a window that fits, as torchvision tries


@dataclass(frozen=True)
class ResizedCropFlip:
    """Cut out a window of random area and shape, resize it, flip half of them; change the colours.

    Parameters
    ----------
    size : pixels
        Of the square that comes out.
    area
        Shares of the image between which the window's area is drawn.
    jitter
        Brightness, contrast and saturation are scaled by up to 1 ± `jitter`, in that order.
    lighting
        The deviation of the colour shift along ImageNet's principal axes, in parts of theirs.
    """

    size: int
    area: tuple[float, float] = (0.08, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    jitter: float = 0.0
    lighting: float = 0.0

    def draw(self, number: int, rng: torch.Generator) -> Tensor:
        """Draw windows' areas, shapes and places, flips, three factors and three shifts."""
        return torch.rand(number, 4 * TRIES + 7, generator=rng)

    def window(self, size: tuple[int, int], draws: Tensor) -> tuple[int, int, int, int]:
        """Return top, left, height and width of the window in an image of a size.

        The first of ten windows that fits is taken; if none does, the largest central one with an
        aspect in range (torchvision's rule).
        """
        height, width = size
        low, high = (math.log(bound) for bound in self.aspect)
        for area, aspect, row, column in draws[: 4 * TRIES].view(TRIES, 4).tolist():
            target = height * width * (self.area[0] + area * (self.area[1] - self.area[0]))
            ratio = math.exp(low + aspect * (high - low))
            w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
            if 0 < w <= width and 0 < h <= height:
                return int(row * (height - h + 1)), int(column * (width - w + 1)), h, w
        h, w = height, width
        if width / height < self.aspect[0]:
            h = min(round(width / self.aspect[0]), height)
        elif width / height > self.aspect[1]:
            w = min(round(height * self.aspect[1]), width)
        return (height - h) // 2, (width - w) // 2, h, w

    def crop(self, image: Tensor, draws: Tensor) -> Tensor:
        """Return one image's window, resized."""
        top, left, h, w = self.window((image.shape[-2], image.shape[-1]), draws)
        cut = resize(image[:, top : top + h, left : left + w], (self.size, self.size))
        return cut.flip(-1) if draws[4 * TRIES] < 0.5 else cut  # half of them

    def color_jitter(self, images: Tensor, draws: Tensor) -> Tensor:
        """Return the batch with other brightness, contrast, saturation and lighting."""
        draws = draws.to(images.device)[:, 4 * TRIES + 1 :, None, None, None]
        if self.jitter:
            factors = 1 + self.jitter * (2 * draws[:, :3] - 1)
            images = (images * factors[:, 0]).clamp(0, 1)
            mean = grey(images).mean((1, 2, 3), keepdim=True)
            images = torch.lerp(mean, images, factors[:, 1]).clamp(0, 1)
            images = torch.lerp(grey(images), images, factors[:, 2]).clamp(0, 1)
        if self.lighting:
            inside = draws[:, 3:6, 0, 0, 0].clamp(
                1e-6, 1 - 1e-6
            )  # the normal law's tails have none
            shifts = torch.special.ndtri(inside) * self.lighting * images.new_tensor(DEVIATIONS)
            images = images + (shifts @ images.new_tensor(AXES).T)[:, :, None, None]
        return images


def grey(images: Tensor) -> Tensor:
    """Return the brightness of every pixel, (B, 1, H, W)."""
    weights = images.new_tensor(GREY)[:, None, None]
    return (images * weights).sum(1, keepdim=True)


def centre(image: Tensor, short_side: int, size: int) -> Tensor:
    """Return an image resized to a short side and cut to its central square, (C, size, size)."""
    height, width = image.shape[-2:]
    short = min(height, width)
    resized = resize(image, (short_side * height // short, short_side * width // short))
    top, left = (round((side - size) / 2) for side in resized.shape[-2:])
    return resized[:, top : top + size, left : left + size]


def central(side: int) -> Callable[[Tensor], Tensor]:
    """Return what fits images to be tested: resizes them, and takes their central square."""
    return partial(centre, short_side=round(MARGIN * side), size=side)


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Return an image, uint8 (C, H, W), of another size, as torchvision resizes (antialiased)."""
    return F.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
