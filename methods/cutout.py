"""Cutout: black out a square of every image without mixing; a control for pasting methods.

Paper    DeVries & Taylor, Improved Regularization of Convolutional Neural Networks with Cutout,
         2017, arXiv:1708.04552, §3.2
Source   uoguelph-mlrg/Cutout@287f934, util/cutout.py:16-42
Differs  in the size: the side of the square is a fraction of the image side, by default 0.5, which
         is the paper's 16 of 32 pixels on CIFAR-10 (the paper uses 0.25 on CIFAR-100). As in the
         source, the square is zero, the mean of normalized images
"""

import torch
from torch import Tensor

from mixbench.contract import Method, Sources, Step
from mixbench.declare import Fraction
from mixbench.kernels import box_masks


class Cutout(Method):
    """Set one square of every image to zero, at a random position and clipped at the image edges.

    Parameters
    ----------
    side_frac
        Side of the square as a fraction of the shorter side of the image.
    """

    version = 1
    exempt = {
        "weights_match_pixels": "the label does not change when pixels are removed",
        "identical_images_are_unchanged": "a square of every image is set to zero",
    }

    def __init__(self, side_frac: Fraction = 0.5) -> None:
        super().__init__()
        self.side_frac = side_frac

    def mix(self, x: Tensor, step: Step) -> tuple[Tensor, Sources]:
        """Return the images with a zeroed square; the only source of each image is itself."""
        size, (height, width) = len(x), x.shape[-2:]
        half = int(min(height, width) * self.side_frac) // 2
        rows = torch.randint(height, (size,), generator=step.rng).to(x.device)
        columns = torch.randint(width, (size,), generator=step.rng).to(x.device)
        cut = box_masks((rows, columns), (half, half), (height, width))
        return x.masked_fill(cut[:, None], 0), Sources.unmixed(x)
