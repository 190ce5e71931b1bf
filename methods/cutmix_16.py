"""CutMix as the PatchMix paper's baseline: a box of fixed size around a Gaussian centre.

Paper    Cascante-Bonilla et al., Evolving Image Compositions for Feature Representation Learning,
         BMVC 2021, arXiv:2106.09011, §4.1 (Baselines)
Source   none published
Differs  unknown: the paper gives 16x16 pixels (on images of 32x32) and a Gaussian with its mean at
         the image's centre, but not its deviation; α = 1 is without effect at a fixed size. The
         deviation, in parts of the image's side, is a parameter here
"""

import torch

from mixbench.declare import Fraction, NonNegative
from mixbench.kernels import Box, clipped_box

from .cutmix import CutMix


class CutMix16(CutMix):
    """Paste a box of fixed size, its centre normally distributed, clipped at the edges.

    Parameters
    ----------
    side_frac
        The box's side, in parts of the image's: a half is 16 pixels of 32.
    deviation_frac
        Of the centre's normal law, in parts of the image's side.
    """

    version = 1

    def __init__(self, side_frac: Fraction = 0.5, deviation_frac: NonNegative = 0.25) -> None:
        super().__init__()
        self.side_frac = side_frac
        self.deviation_frac = deviation_frac

    def draw_box(self, size: tuple[int, int], rng: torch.Generator) -> Box:
        """Draw what is pasted in images of a height and width."""
        height, width = size
        offsets = torch.randn(2, generator=rng) * self.deviation_frac
        row = min(max(int(height * (0.5 + float(offsets[0]))), 0), height - 1)
        column = min(max(int(width * (0.5 + float(offsets[1]))), 0), width - 1)
        half = int(height * self.side_frac) // 2, int(width * self.side_frac) // 2
        return clipped_box((row, column), half, size)
