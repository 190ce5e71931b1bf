"""Random Erasing: overwrite a random box of some images, without mixing; a control.

Paper    Zhong et al., Random Erasing Data Augmentation, AAAI 2020, arXiv:1708.04896, Algorithm 1
Source   zhunzhong07/Random-Erasing@03a3222, transforms.py:11-36
Differs  draws a box again if it does not fit, as Algorithm 1 does and the source does not; an image
         keeps all pixels if none of 100 fits. The mean of normalized images is zero; noise is
         standard normal, as timm's mode pixel, instead of uniform on 0..255
"""

from typing import Literal

import torch
from torch import Tensor

from mixbench.contract import Method, Sources, Step
from mixbench.declare import Fraction, PositiveFraction
from mixbench.errors import BadParameter

TRIES = 100


class RandomErasing(Method):
    """Overwrite one box in some of the images, with an area and a shape of its own.

    Parameters
    ----------
    prob
        Probability that an image has a box.
    smallest, largest
        Range of the box's area, as a fraction of the image's.
    aspect
        Smallest ratio of the box's height to its width; the largest is 1 / `aspect`.
    fill
        Pixels of the box: ``mean`` (of all images) or ``noise``.
    """

    version = 1
    exempt = {
        "weights_match_pixels": "the label does not change when pixels are removed",
        "identical_images_are_unchanged": "a box of some images is overwritten",
    }

    def __init__(
        self,
        prob: Fraction = 0.5,
        smallest: PositiveFraction = 0.02,
        largest: PositiveFraction = 0.4,
        aspect: PositiveFraction = 0.3,
        fill: Literal["mean", "noise"] = "mean",
    ) -> None:
        super().__init__()
        if smallest > largest:
            raise BadParameter(f"smallest must be at most largest, {largest} (got {smallest}).")
        self.prob, self.aspect, self.fill = prob, aspect, fill
        self.smallest, self.largest = smallest, largest

    def mix(self, x: Tensor, step: Step) -> tuple[Tensor, Sources]:
        """Return the images with erased boxes; the only source of each image is itself."""
        size, (height, width) = len(x), x.shape[-2:]
        drawn = torch.rand(4, size, TRIES, generator=step.rng)
        area = (self.smallest + (self.largest - self.smallest) * drawn[0]) * height * width
        ratio = self.aspect + (1 / self.aspect - self.aspect) * drawn[1]
        rows, columns = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
        fits = (rows < height) & (columns < width)
        first = fits.int().argmax(1, keepdim=True)
        rows, columns, top, left = (v.gather(1, first) for v in (rows, columns, *drawn[2:]))
        top = (top * (height - rows + 1)).floor()
        left = (left * (width - columns + 1)).floor()
        down, across = torch.arange(height), torch.arange(width)
        inside = ((down >= top) & (down < top + rows))[:, :, None]
        mask = inside & ((across >= left) & (across < left + columns))[:, None]
        erased = fits.any(1) & (torch.rand(size, generator=step.rng) < self.prob)
        mask = (mask & erased[:, None, None])[:, None].to(x.device)
        if self.fill == "mean":
            return x.masked_fill(mask, 0), Sources.unmixed(x)
        noise = torch.randn(x.shape, generator=step.rng).to(x)
        return torch.where(mask, noise, x), Sources.unmixed(x)
