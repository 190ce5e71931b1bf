"""Corruptions of generated images: by kind those of ImageNet-C, by strength and make our own.

They exist so that what reads and scores the published archives runs without them. Images are
float32 (B, 3, H, W) in [0, 1]; lengths are in parts of their side, strengths grow with the
severity, 1 to 5.
"""

import io
import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from mixbench.declare import CORRUPTIONS
from mixbench.streams import generator

Corruption = Callable[[Tensor, int, torch.Generator], Tensor]


def corrupted(images: Tensor, corruption: str, severity: int, seed: int) -> Tensor:
    """Return images under a corruption.

    Parameters
    ----------
    images : (B, 3, H, W) uint8
    severity
        1 to 5.

    Returns
    -------
    images : (B, 3, H, W) uint8
    """
    rng = generator(seed, "synthetic", 100 * CORRUPTIONS.index(corruption) + severity)
    changed = MAKERS[corruption](images.float() / 255, severity, rng)
    return (255 * changed).round().clamp(0, 255).to(torch.uint8)


def gaussian_noise(x: Tensor, severity: int, rng: torch.Generator) -> Tensor:
    """Add independent normal noise."""
    return x + 0.05 * severity * torch.randn(x.shape, generator=rng)


def shot_noise(x: Tensor, severity: int, rng: torch.Generator) -> Tensor:
    """Count fewer and fewer photons."""
    photons = 120 / (severity * math.sqrt(severity))
    return torch.poisson(x * photons, generator=rng) / photons


def impulse_noise(x: Tensor, severity: int, rng: torch.Generator) -> Tensor:
    """Make some values black or white."""
    draws = torch.rand(x.shape, generator=rng)
    share = 0.03 * severity
    return x.masked_fill(draws < share / 2, 0.0).masked_fill(draws > 1 - share / 2, 1.0)


def defocus_blur(x: Tensor, severity: int, rng: torch.Generator) -> Tensor:  # noqa: ARG001  # the same for all
    """Spread every pixel over a disk."""
    radius = 0.01 * severity * x.shape[-1] + 0.5
    return _spread(x, _disk(radius).expand(len(x), -1, -1))


def glass_blur(x: Tensor, severity: int, rng: torch.Generator) -> Tensor:
    """Take every pixel from somewhere near, then soften a little."""
    shift = (2 * torch.rand(len(x), *x.shape[-2:], 2, generator=rng) - 1) * 0.03 * severity
    return _spread(_displaced(x, shift), _disk(1.0).expand(len(x), -1, -1))


def motion_blur(x: Tensor, severity: int, rng: torch.Generator) -> Tensor:
    """Spread every pixel along a line, in a direction of each image's own."""
    length = 0.03 * severity * x.shape[-1] + 1
    return _spread(x, _lines(length, math.pi * torch.rand(len(x), generator=rng)))


def zoom_blur(x: Tensor, severity: int, rng: torch.Generator) -> Tensor:  # noqa: ARG001  # the same for all
    """Average over larger and larger copies about the centre."""
    grid = _grid(x)
    scales = torch.linspace(1, 1 - 0.07 * severity, 5 + severity).tolist()
    return torch.stack([_sampled(x, scale * grid) for scale in scales]).mean(0)


def snow(x: Tensor, severity: int, rng: torch.Generator) -> Tensor:
    """Let streaks of white fall, and turn the rest paler."""
    share = 0.02 * severity
    flakes = (torch.rand(len(x), 1, *x.shape[-2:], generator=rng) < share).float()
    angles = math.pi * (0.35 + 0.3 * torch.rand(len(x), generator=rng))
    streaks = 2.5 * _spread(flakes, _lines(0.12 * x.shape[-1] + 1, angles))
    pale = torch.lerp(x, x.mean(1, keepdim=True) * 0.5 + 0.5, 0.08 * severity)
    return pale + streaks.clamp(0, 1)


def frost(x: Tensor, severity: int, rng: torch.Generator) -> Tensor:
    """Lay bluish crystals over the image."""
    ice = (2 * (_clouds(x, rng) - 0.5)).abs()
    tint = torch.tensor([0.75, 0.88, 1.0])[:, None, None]
    return torch.lerp(x, (1 - ice) * tint, 0.12 * severity)


def fog(x: Tensor, severity: int, rng: torch.Generator) -> Tensor:
    """Add clouds, and divide by what the brightest pixel would be."""
    strength = 0.35 * severity
    top = x.amax((1, 2, 3), keepdim=True)
    return (x + strength * (0.4 + 0.6 * _clouds(x, rng))) * top / (top + strength) ** 0.8


def brightness(x: Tensor, severity: int, rng: torch.Generator) -> Tensor:  # noqa: ARG001  # the same for all
    """Make everything brighter."""
    return x + 0.1 * severity


def contrast(x: Tensor, severity: int, rng: torch.Generator) -> Tensor:  # noqa: ARG001  # the same for all
    """Draw everything towards its mean."""
    mean = x.mean((2, 3), keepdim=True)
    return mean + (x - mean) * 0.7**severity


def elastic_transform(x: Tensor, severity: int, rng: torch.Generator) -> Tensor:
    """Pull at the image, smoothly."""
    coarse = torch.randn(len(x), 2, 5, 5, generator=rng)
    smooth = F.interpolate(coarse, x.shape[-2:], mode="bicubic", align_corners=False)
    return _displaced(x, 0.03 * severity * smooth.permute(0, 2, 3, 1))


def pixelate(x: Tensor, severity: int, rng: torch.Generator) -> Tensor:  # noqa: ARG001  # the same for all
    """Reduce the image, and enlarge it again without smoothing."""
    small = [max(round(side / (1 + 0.35 * severity)), 2) for side in x.shape[-2:]]
    return F.interpolate(F.interpolate(x, small, mode="area"), x.shape[-2:], mode="nearest-exact")


def jpeg_compression(x: Tensor, severity: int, rng: torch.Generator) -> Tensor:  # noqa: ARG001  # the same for all
    """Write as JPEG and read again."""
    rows = (255 * x).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    found = []
    for row in rows:
        buffer = io.BytesIO()
        Image.fromarray(row).save(buffer, "JPEG", quality=35 - 6 * severity)
        found.append(torch.from_numpy(np.array(Image.open(buffer))))
    return torch.stack(found).permute(0, 3, 1, 2).float() / 255


MAKERS: Mapping[str, Corruption] = {
    maker.__name__: maker
    for maker in (
        *(gaussian_noise, shot_noise, impulse_noise, defocus_blur, glass_blur, motion_blur),
        *(zoom_blur, snow, frost, fog, brightness, contrast, elastic_transform, pixelate),
        jpeg_compression,
    )
}


def _offsets(radius: float) -> tuple[Tensor, Tensor]:
    """Return the rows and columns of a kernel, counted from its centre."""
    reach = torch.arange(-math.ceil(radius), math.ceil(radius) + 1.0)
    down, right = torch.meshgrid(reach, reach, indexing="ij")
    return down, right


def _disk(radius: float) -> Tensor:
    """Return the weights of a disk with a soft rim, (n, n)."""
    down, right = _offsets(radius)
    weights = (radius + 0.5 - torch.hypot(down, right)).clamp(0, 1)
    return weights / weights.sum()


def _lines(length: float, angles: Tensor) -> Tensor:
    """Return the weights of lines through the centre, (B, n, n), of a length in pixels."""
    down, right = _offsets(length / 2)
    cos, sin = angles.cos()[:, None, None], angles.sin()[:, None, None]
    along, across = right * cos + down * sin, right * sin - down * cos
    weights = (1 - across.abs()).clamp(0, 1) * (length / 2 + 0.5 - along.abs()).clamp(0, 1)
    return weights / weights.sum((1, 2), keepdim=True)


def _spread(x: Tensor, kernels: Tensor) -> Tensor:
    """Return the images folded with a kernel each, (B, n, n), mirrored at the edges."""
    channels, margin = x.shape[1], kernels.shape[-1] // 2
    padded = F.pad(x, (margin,) * 4, mode="reflect").flatten(0, 1)[None]
    weights = kernels.repeat_interleave(channels, 0)[:, None]
    return F.conv2d(padded, weights, groups=weights.shape[0]).view(x.shape)


def _grid(x: Tensor) -> Tensor:
    """Return where every pixel lies, (B, H, W, 2), from -1 to 1 across the image."""
    theta = torch.eye(2, 3).expand(len(x), -1, -1)
    return F.affine_grid(theta, list(x.shape), align_corners=False)


def _sampled(x: Tensor, grid: Tensor) -> Tensor:
    return F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)


def _displaced(x: Tensor, shift: Tensor) -> Tensor:
    """Return the images read from places shifted by (B, H, W, 2), in parts of half a side."""
    return _sampled(x, _grid(x) + shift)


def _clouds(x: Tensor, rng: torch.Generator) -> Tensor:
    """Return one plane of clouds for each image, (B, 1, H, W) in [0, 1]: noise of all sizes."""
    total = torch.zeros(len(x), 1, *x.shape[-2:])
    for octave in range(1, 5):
        coarse = torch.rand(len(x), 1, 2**octave, 2**octave, generator=rng)
        total += 0.5**octave * F.interpolate(
            coarse, x.shape[-2:], mode="bilinear", align_corners=False
        )
    low, high = total.amin((1, 2, 3), keepdim=True), total.amax((1, 2, 3), keepdim=True)
    return (total - low) / (high - low)
