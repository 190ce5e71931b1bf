"""Augmentations of single images, whose random numbers are drawn for a whole batch at once.

The draws of a batch are a tensor of random numbers in [0, 1) with one row per image. The result
is therefore the same whether the device augments a whole batch or a DataLoader worker augments a
single image. Images are uint8, (C, H, W) or (B, C, H, W), until `color_jitter` makes them float32.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

CROP_PCT = 0.875  # side of the central crop / short side of the resized image
Interpolation = Literal["bilinear", "bicubic"]


class Augmentation(Protocol):
    """Interface of an augmentation, which changes every image of a batch at random."""

    def draw(self, number: int, rng: torch.Generator) -> Tensor:
        """Return the draws for `number` images, (number, n) float32 in [0, 1)."""
        ...

    def crop(self, image: Tensor, draws: Tensor) -> Tensor:
        """Return a crop of one image, uint8 (C, h, w), given its draws, (n,)."""
        ...

    def color_jitter(self, images: Tensor, draws: Tensor) -> Tensor:
        """Return a batch with changed colours, float32 (B, C, h, w) in [0, 1]."""
        ...


@dataclass(frozen=True)
class CropFlip:
    """Pad an image with zeros, crop it at random to its original size, and flip it at random.

    Parameters
    ----------
    padding : pixels
        Padding on each side, which is the largest shift of the image.
    flip
        Probability of a horizontal flip.
    """

    padding: int
    flip: float = 0.0

    def draw(self, number: int, rng: torch.Generator) -> Tensor:
        """Draw a row, a column and a flip for each image."""
        return torch.rand(number, 3, generator=rng)

    def _places(self, draws: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the first row and column of each crop, and whether it is flipped."""
        down, right = (draws[..., :2] * (2 * self.padding + 1)).long().unbind(-1)
        return down, right, draws[..., 2] < self.flip

    def crop(self, image: Tensor, draws: Tensor) -> Tensor:
        """Return the crop of one image."""
        height, width = image.shape[-2:]
        down, right, flip = self._places(draws)
        padded = F.pad(image, (self.padding,) * 4)
        window = padded[..., down : down + height, right : right + width]
        return window.flip(-1) if flip else window

    def crop_batch(self, images: Tensor, draws: Tensor) -> Tensor:
        """Return the crops of a batch of images, without a loop over images."""
        size, channels, height, width = images.shape
        down, right, flip = (draw.to(images.device) for draw in self._places(draws))
        padded = F.pad(images, (self.padding,) * 4)
        stride = width + 2 * self.padding
        plane = (height + 2 * self.padding) * stride
        # A flipped crop is a crop of the flipped image. `pieces` is an overlapping view with one
        # row per start position, so a single index_select gathers the rows of all crops.
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
        """Return the images unchanged."""
        return images


@dataclass(frozen=True)
class WindowFlip:
    """Resize an image to a square, crop a smaller square at random, and flip half of the images.

    Parameters
    ----------
    whole : pixels
        Side of the square to which an image is resized, regardless of its aspect ratio.
    size : pixels
        Side of the square crop.
    """

    whole: int
    size: int

    def draw(self, number: int, rng: torch.Generator) -> Tensor:
        """Draw a row, a column and a flip for each image."""
        return torch.rand(number, 3, generator=rng)

    def crop(self, image: Tensor, draws: Tensor) -> Tensor:
        """Return the crop of one image, after resizing it."""
        top, left = (draws[:2] * (self.whole - self.size + 1)).long().tolist()
        square = resize(image, (self.whole, self.whole))
        cut = square[:, top : top + self.size, left : left + self.size]
        return cut.flip(-1) if draws[2] < 0.5 else cut  # flip half of the images

    def color_jitter(self, images: Tensor, draws: Tensor) -> Tensor:  # noqa: ARG002  # the protocol
        """Return the images unchanged."""
        return images


# Standard deviations along the principal axes of ImageNet's RGB values (Krizhevsky et al., NIPS
# 2012, §4.1), and these axes, one row per colour channel.
DEVIATIONS = (0.2175, 0.0188, 0.0045)
AXES = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))
GREY = (0.299, 0.587, 0.114)
TRIES = 10  # attempts to draw a window that fits, as in torchvision


@dataclass(frozen=True)
class ResizedCropFlip:
    """Crop a window of random area and aspect ratio, resize it, flip half, change the colours.

    Parameters
    ----------
    size : pixels
        Side of the square to which the window is resized.
    area
        Range of the window's area, as a fraction of the image's area; drawn uniformly.
    aspect
        Range of the window's aspect ratio (width / height); drawn log-uniformly.
    jitter
        Brightness, contrast and saturation are multiplied, in this order, by factors drawn
        uniformly from 1 ± `jitter`.
    lighting
        Standard deviation of the random colour shift along each principal axis of ImageNet's RGB
        values, as a fraction of ImageNet's own standard deviation along that axis.
    interpolation
        Interpolation of the resized window.
    """

    size: int
    area: tuple[float, float] = (0.08, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    jitter: float = 0.0
    lighting: float = 0.0
    interpolation: Interpolation = "bilinear"

    def draw(self, number: int, rng: torch.Generator) -> Tensor:
        """Draw the window, the flip, three jitter factors and three colour shifts per image."""
        return torch.rand(number, 4 * TRIES + 7, generator=rng)

    def window(self, size: tuple[int, int], draws: Tensor) -> tuple[int, int, int, int]:
        """Return top, left, height and width of the window in an image of the given size.

        The window is the first of ten drawn windows that fits into the image. If none fits, it is
        the largest central window whose aspect ratio is in range (torchvision's rule).
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
        """Return the resized window of one image."""
        top, left, h, w = self.window((image.shape[-2], image.shape[-1]), draws)
        window = image[:, top : top + h, left : left + w]
        cut = resize(window, (self.size, self.size), self.interpolation)
        return cut.flip(-1) if draws[4 * TRIES] < 0.5 else cut  # flip half of the images

    def color_jitter(self, images: Tensor, draws: Tensor) -> Tensor:
        """Return the batch with changed brightness, contrast, saturation and lighting."""
        draws = draws.to(images.device)[:, 4 * TRIES + 1 :, None, None, None]
        if self.jitter:
            factors = 1 + self.jitter * (2 * draws[:, :3] - 1)
            images = (images * factors[:, 0]).clamp(0, 1)
            mean = grey(images).mean((1, 2, 3), keepdim=True)
            images = torch.lerp(mean, images, factors[:, 1]).clamp(0, 1)
            images = torch.lerp(grey(images), images, factors[:, 2]).clamp(0, 1)
        if self.lighting:
            inside = draws[:, 3:6, 0, 0, 0].clamp(1e-6, 1 - 1e-6)  # ndtri is infinite at 0 and 1
            shifts = torch.special.ndtri(inside) * self.lighting * images.new_tensor(DEVIATIONS)
            images = images + (shifts @ images.new_tensor(AXES).T)[:, :, None, None]
        return images


def grey(images: Tensor) -> Tensor:
    """Return the brightness of every pixel, (B, 1, H, W)."""
    weights = images.new_tensor(GREY)[:, None, None]
    return (images * weights).sum(1, keepdim=True)


def centre(
    image: Tensor, short_side: int, size: int, interpolation: Interpolation = "bilinear"
) -> Tensor:
    """Resize an image and return its central square, (C, size, size).

    Parameters
    ----------
    image : (C, H, W) uint8
        Image of any size.
    short_side : pixels
        Length of the image's shorter side after resizing, which keeps the aspect ratio.
    size : pixels
        Side of the central square.
    interpolation
        Interpolation of the resized image.
    """
    resized = resize_short_side(image, short_side, interpolation)
    top, left = (round((side - size) / 2) for side in resized.shape[-2:])
    return resized[:, top : top + size, left : left + size]


def resize_short_side(
    image: Tensor, short_side: int, interpolation: Interpolation = "bilinear"
) -> Tensor:
    """Resize an image, uint8 (C, H, W), to this length of its shorter side; keep its shape."""
    height, width = image.shape[-2:]
    short = min(height, width)
    size = (short_side * height // short, short_side * width // short)
    return resize(image, size, interpolation)


def central(
    side: int, crop_pct: float = CROP_PCT, interpolation: Interpolation = "bilinear"
) -> Callable[[Tensor], Tensor]:
    """Return a function that resizes a test image and crops its central square of this side."""
    whole = round(side / crop_pct)
    return partial(centre, short_side=whole, size=side, interpolation=interpolation)


def resize(
    image: Tensor, size: tuple[int, int], interpolation: Interpolation = "bilinear"
) -> Tensor:
    """Resize an image, uint8 (C, H, W), with antialiasing, as torchvision does."""
    # A window of decoded pixels is resized faster as a whole image of its own.
    whole = image[None].contiguous(memory_format=torch.channels_last)
    return F.interpolate(whole, size, mode=interpolation, antialias=True)[0]
