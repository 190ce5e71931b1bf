"""Corruptions of CIFAR-10-C that can be computed from the test images alone.

Kinds and strengths are those of hendrycks/robustness@8190fe3, ImageNet-C/create_c/make_cifar_c.py,
lines 125 to 355. Seven of its fifteen kinds are left out: they need photographs of frost,
ImageMagick or long loops over pixels. The random draws differ from the published ones: results are
close to those on CIFAR-10-C, but not equal.
"""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from mixbench.contract import Normalization, Part, Split
from mixbench.declare import COMPUTED_CORRUPTIONS, CORRUPTION_ERROR, CountOrZero, Weights
from mixbench.errors import BadParameter
from mixbench.streams import generator
from mixbench.vision.images.splits import ImageSplit
from mixbench.vision.robustness.changed_images import stored
from mixbench.vision.robustness.corrupted import Corrupted
from mixbench.vision.robustness.corruptions import SEVERITIES, conditions


def gaussian_noise(image: Tensor, sigma: float, rng: torch.Generator) -> Tensor:
    """Add normal noise to an image in [0, 1]."""
    return image + sigma * torch.randn(image.shape, generator=rng)


def shot_noise(image: Tensor, photons: float, rng: torch.Generator) -> Tensor:
    """Replace each value by a Poisson-distributed number of photons."""
    return torch.poisson(image * photons, generator=rng) / photons


def impulse_noise(image: Tensor, share: float, rng: torch.Generator) -> Tensor:
    """Set a share of the values to black or white."""
    draws = torch.rand(image.shape, generator=rng)
    salt = torch.rand(image.shape, generator=rng) < 0.5
    return torch.where(draws < share, salt.to(image.dtype), image)


def defocus_blur(image: Tensor, form: tuple[float, float], rng: torch.Generator) -> Tensor:  # noqa: ARG001  # one form for all
    """Blur an image with a disk of some radius, whose edge is smoothed with a normal kernel."""
    radius, smoothing = form
    across = torch.arange(-8, 9, dtype=torch.float32)
    disk = (across[:, None].square() + across.square() <= radius**2).float()
    near = torch.tensor([-1.0, 0.0, 1.0]).square().div(-2 * smoothing**2).exp()
    near = near / near.sum()
    kernel = F.conv2d(
        (disk / disk.sum())[None, None], (near[:, None] * near)[None, None], padding=1
    )
    padded = F.pad(image[:, None], (8, 8, 8, 8), mode="reflect")
    return F.conv2d(padded, kernel)[:, 0]


def brightness(image: Tensor, more: float, rng: torch.Generator) -> Tensor:  # noqa: ARG001
    """Add to the value of each pixel in the space of hue, saturation and value."""
    value = image.amax(0)
    # Hue and saturation stay as they are if all channels are multiplied by the same number.
    scaled = image * ((value + more).clamp(max=1) / value.clamp(min=1e-12))
    return torch.where(value > 0, scaled, torch.tensor(more))


def contrast(image: Tensor, factor: float, rng: torch.Generator) -> Tensor:  # noqa: ARG001
    """Draw the values of each channel towards their mean."""
    means = image.mean((1, 2), keepdim=True)
    return (image - means) * factor + means


def pixelate(image: Tensor, factor: float, rng: torch.Generator) -> Tensor:  # noqa: ARG001
    """Shrink an image and enlarge it again, both by averaging over boxes."""
    height, width = image.shape[1:]
    small = _picture(image).resize(
        (math.floor(width * factor), math.floor(height * factor)), Image.Resampling.BOX
    )
    return _pixels(small.resize((width, height), Image.Resampling.BOX))


def jpeg_compression(image: Tensor, quality: int, rng: torch.Generator) -> Tensor:  # noqa: ARG001
    """Compress an image as JPEG with loss."""
    file = io.BytesIO()
    _picture(image).save(file, "JPEG", quality=quality)
    return _pixels(Image.open(file))


def _picture(image: Tensor) -> Image.Image:
    """Return an image in [0, 1], (3, H, W), as one of Pillow."""
    return Image.fromarray(image.mul(255).round().byte().permute(1, 2, 0).contiguous().numpy())


def _pixels(picture: Image.Image) -> Tensor:
    """Return an image of Pillow as values in [0, 1], (3, H, W)."""
    return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1) / 255


class Kind(NamedTuple):
    """A kind of corruption.

    Attributes
    ----------
    change
        Function from an image in [0, 1], a strength and random draws to the changed image.
    strengths
        Strength at each severity.
    """

    change: Callable[[Tensor, float, torch.Generator], Tensor]
    strengths: Sequence[float]


KINDS: Mapping[str, Kind] = {
    "gaussian_noise": Kind(gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.1)),
    "shot_noise": Kind(shot_noise, (500, 250, 100, 75, 50)),
    "impulse_noise": Kind(impulse_noise, (0.01, 0.02, 0.03, 0.05, 0.07)),
    "defocus_blur": Kind(
        defocus_blur,  # type: ignore[arg-type]  # its strength is a radius and a smoothing
        ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),  # type: ignore[arg-type]
    ),
    "brightness": Kind(brightness, (0.05, 0.1, 0.15, 0.2, 0.3)),
    "contrast": Kind(contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
    "pixelate": Kind(pixelate, (0.95, 0.9, 0.85, 0.75, 0.65)),
    "jpeg_compression": Kind(jpeg_compression, (80, 65, 58, 50, 40)),  # type: ignore[arg-type]
}
assert tuple(KINDS) == COMPUTED_CORRUPTIONS


def corrupted(image: Tensor, kind: int, severity: int, item: int) -> Tensor:
    """Return an image under a corruption, the same whenever it is computed.

    Parameters
    ----------
    image : (3, H, W) uint8
    kind
        Index of the kind in `KINDS`.
    severity
        0 to 4.
    item
        Number of the image, which decides the random draws together with kind and severity.

    Returns
    -------
    image : (3, H, W) uint8
    """
    change, strengths = [*KINDS.values()][kind]
    counter = (item * len(KINDS) + kind) * SEVERITIES + severity
    changed = change(image / 255, strengths[severity], generator(0, "corruption", counter))
    return (255 * changed).round().clamp(0, 255).byte()


class CorruptedSplit(ImageSplit):
    """The images of a split under each kind of corruption at each severity.

    They are computed when they are read: all of them would need 40 times the memory.

    Parameters
    ----------
    clean
        Split of the images.
    number
        Number of images that are used, the first ones.
    normalization
        Mean and standard deviation of each channel.
    """

    def __init__(self, clean: Split, number: int, normalization: Normalization) -> None:
        self._clean = stored(clean)
        self._number = number
        under = conditions(number, len(KINDS))
        classes = self._clean.targets[:number].repeat(len(KINDS) * SEVERITIES)
        targets = torch.cat([classes[:, None], under], 1)
        super().__init__(targets, None, normalization)

    def fetch(self, index: Tensor, draws: Tensor | None) -> Tensor:
        """Return the corrupted images, uint8 (B, 3, H, W)."""
        items = index % self._number
        images = self._clean.fetch(items, draws).cpu()
        under = self.targets[index, 1:].tolist()
        triples = zip(images, under, items.tolist(), strict=True)
        return torch.stack([
            corrupted(image, kind, severity, item) for image, (kind, severity), item in triples
        ])


class ComputedCorruptions(Corrupted):
    """Base class of evaluations on the base task's test images, corrupted when they are read.

    Parameters
    ----------
    images
        Number of test images, the first ones of the data set; 0 uses all.
    weights
        Weights of the evaluated model: ``pretrained`` (the model trained with the same method and
        seed), ``timm`` or ``timm:TAG`` (published by timm), or the path of a weight file.
    """

    metrics = CORRUPTION_ERROR
    test_items_per_image = 40  # eight corruptions at five severities
    corruptions = COMPUTED_CORRUPTIONS

    def __init__(self, images: CountOrZero = 0, weights: Weights = "pretrained") -> None:
        super().__init__(weights)
        self.images = images

    def load(self, part: Part, folder: Path, seed: int) -> Split:
        """Return the test images under every corruption."""
        clean = self.base_task.load(part, folder, seed)
        if self.images > len(clean):
            raise BadParameter(
                f"images must be at most the {len(clean)} test images (got {self.images})."
            )
        return CorruptedSplit(clean, self.images or len(clean), self.normalization)
