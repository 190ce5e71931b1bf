"""CutMix as the PatchMix paper's baseline: a box of fixed size with a Gaussian centre.

Paper    Cascante-Bonilla et al., Evolving Image Compositions for Feature Representation Learning,
         BMVC 2021, arXiv:2106.09011, §4.1 (Baselines)
Source   none published
Differs  unknown: the paper gives a box of 16x16 pixels (on images of 32x32) and a Gaussian whose
         mean is the image centre, but not its standard deviation, which is a parameter here, as a
         fraction of the image side. The paper's α = 1 has no effect with a fixed box size
"""

import torch

from mixbench.declare import Fraction, NonNegative
from mixbench.kernels import Box, clipped_box

from .cutmix import CutMix


class CutMix16(CutMix):
    """Paste a box of fixed size at a normally distributed position, clipped at the image edges.

    Parameters
    ----------
    side_frac
        Side of the box as a fraction of the image side. 0.5 is 16 pixels on images of 32 pixels.
    deviation_frac
        Standard deviation of the box centre's normal distribution, as a fraction of the image side.
    """

    version = 1

    def __init__(self, side_frac: Fraction = 0.5, deviation_frac: NonNegative = 0.25) -> None:
        super().__init__()
        self.side_frac = side_frac
        self.deviation_frac = deviation_frac

    def draw_box(self, size: tuple[int, int], rng: torch.Generator) -> Box:
        """Draw a box for images of size (height, width)."""
        height, width = size
        offsets = torch.randn(2, generator=rng) * self.deviation_frac
        row = min(max(int(height * (0.5 + float(offsets[0]))), 0), height - 1)
        column = min(max(int(width * (0.5 + float(offsets[1]))), 0), width - 1)
        half = int(height * self.side_frac) // 2, int(width * self.side_frac) // 2
        return clipped_box((row, column), half, size)
