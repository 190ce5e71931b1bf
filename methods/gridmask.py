"""GridMask: black out a lattice of squares, without mixing; a control for pasting methods.

Paper    Chen et al., GridMask Data Augmentation, 2020, arXiv:2001.04086, §3
Source   dvlab-research/GridMask@4912983, imagenet_grid/utils/grid.py:20-63, mode 1; the values
         are those of imagenet_grid/imagenet_amp.py@50b9c8b
Differs  in the probability, which is that of all steps: the source raises it linearly over the
         first 240 epochs. The period of the lattice is a fraction of the image's shorter side,
         from 96 / 224, as in the source, to 1. The lattice is turned exactly, not as an image.
         Removed pixels are zero, the mean of normalized images
"""

from math import pi

import torch
from torch import Tensor

from mixbench.contract import Method, Sources, Step
from mixbench.declare import Fraction, NonNegative, PositiveFraction
from mixbench.errors import BadParameter


class GridMask(Method):
    """Set a lattice of squares of every image to zero, with a period, place and angle of its own.

    Parameters
    ----------
    prob
        Probability that an image has a lattice.
    keep
        Width of the stripes between the squares, as a fraction of the period.
    smallest, largest
        Range of the period, as a fraction of the shorter side of the image.
    rotate : degrees
        Largest angle by which the lattice is turned.
    """

    version = 1
    exempt = {
        "weights_match_pixels": "the label does not change when pixels are removed",
        "identical_images_are_unchanged": "a lattice of every image is set to zero",
    }

    def __init__(
        self,
        prob: Fraction = 0.8,
        keep: Fraction = 0.6,
        smallest: PositiveFraction = 0.43,
        largest: PositiveFraction = 1.0,
        rotate: NonNegative = 360.0,
    ) -> None:
        super().__init__()
        if smallest > largest:
            raise BadParameter(f"smallest must be at most largest, {largest} (got {smallest}).")
        self.prob, self.keep, self.rotate = prob, keep, rotate
        self.smallest, self.largest = smallest, largest

    def mix(self, x: Tensor, step: Step) -> tuple[Tensor, Sources]:
        """Return the images with removed squares; the only source of each image is itself."""
        size, (height, width) = len(x), x.shape[-2:]
        drawn = torch.rand(5, size, 1, 1, generator=step.rng)
        side = min(height, width)
        least, most = (max(round(part * side), 2) for part in (self.smallest, self.largest))
        period = (least + (max(most, least + 1) - least) * drawn[0]).floor()
        stripe = (self.keep * period + 0.5).floor()
        angle = self.rotate * pi / 180 * drawn[1]
        down = (torch.arange(height) - height / 2)[:, None]
        across = torch.arange(width) - width / 2
        turned = (
            down * angle.cos() + across * angle.sin(),
            across * angle.cos() - down * angle.sin(),
        )
        offsets = ((period * part).floor() for part in drawn[2:4])
        rows, columns = (
            (place.floor() - offset).remainder(period) >= stripe
            for place, offset in zip(turned, offsets, strict=True)
        )
        mask = rows & columns & (drawn[4] < self.prob)
        return x.masked_fill(mask[:, None].to(x.device), 0), Sources.unmixed(x)
