"""Corruptions of generated images, so that the readers of the published archives can be tested.

They are not those of ImageNet-C: three of our own, by kind, stand for its fifteen. Noise stands for
noise, coarser pixels for blur and for digital loss, less contrast for weather.
"""

from collections.abc import Callable, Mapping

import torch
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
    corruption
        One of `CORRUPTIONS`.
    severity
        1 to 5.

    Returns
    -------
    images : (B, 3, H, W) uint8
    """
    rng = generator(seed, "synthetic", 100 * CORRUPTIONS.index(corruption) + severity)
    changed = STANDS_FOR[corruption](images.float() / 255, severity, rng)
    return (255 * changed).round().clamp(0, 255).to(torch.uint8)


def noise(x: Tensor, severity: int, rng: torch.Generator) -> Tensor:
    """Add normal noise to images in [0, 1]."""
    return x + 0.05 * severity * torch.randn(x.shape, generator=rng)


def pixelate(x: Tensor, severity: int, rng: torch.Generator) -> Tensor:  # noqa: ARG001  # the same for all
    """Shrink images and enlarge them again without smoothing."""
    small = [max(round(side / (1 + 0.35 * severity)), 2) for side in x.shape[-2:]]
    return F.interpolate(F.interpolate(x, small, mode="area"), x.shape[-2:], mode="nearest-exact")


def contrast(x: Tensor, severity: int, rng: torch.Generator) -> Tensor:  # noqa: ARG001  # the same for all
    """Draw images towards their mean colour."""
    mean = x.mean((2, 3), keepdim=True)
    return mean + (x - mean) * 0.7**severity


STANDS_FOR: Mapping[str, Corruption] = {
    **dict.fromkeys(("gaussian_noise", "shot_noise", "impulse_noise"), noise),
    **dict.fromkeys(("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"), pixelate),
    **dict.fromkeys(("snow", "frost", "fog", "brightness"), contrast),
    **dict.fromkeys(("contrast", "elastic_transform", "pixelate", "jpeg_compression"), pixelate),
}
