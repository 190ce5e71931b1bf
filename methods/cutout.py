"""Cutout: black out a square of every image, and mix nothing: the control of all that paste.

Paper    DeVries & Taylor, Improved Regularization of Convolutional Neural Networks with Cutout,
         2017, arXiv:1708.04552, §3.2
Source   uoguelph-mlrg/Cutout@287f934, util/cutout.py:16-42
Differs  in sizes: the side is a share of the image's, by default half as the paper's 16 of 32
         pixels on CIFAR-10 (its CIFAR-100 has a quarter). Zero is the mean of normalised images, as
         there
"""

import torch
from torch import Tensor

from mixbench.contract import Method, Sources, Step
from mixbench.declare import Fraction
from mixbench.kernels import around


class Cutout(Method):
    """Set one square of every image to zero, each at a place of its own, clipped at the edges.

    Parameters
    ----------
    side_frac
        The square's side, as a share of the image's shorter one.
    """

    version = 1
    exempt = {
        "labels_say_what_the_pixels_hold": "the label stays whole where pixels are lost",
        "alike_images_stay": "every image loses a square",
    }

    def __init__(self, side_frac: Fraction = 0.5) -> None:
        super().__init__()
        self.side_frac = side_frac

    def mix(self, x: Tensor, step: Step) -> tuple[Tensor, Sources]:
        """Return the images with a square blacked out, and each as its own only source."""
        size, (height, width) = len(x), x.shape[-2:]
        half = int(min(height, width) * self.side_frac) // 2
        rows = torch.randint(height, (size,), generator=step.rng).to(x.device)
        columns = torch.randint(width, (size,), generator=step.rng).to(x.device)
        cut = around((rows, columns), (half, half), (height, width))
        return x.masked_fill(cut[:, None], 0), Sources.alone(x)
