"""SmoothMix: blend in a partner through a Gaussian window, without a visible edge.

Paper    Lee et al., SmoothMix: A Simple Yet Effective Data Augmentation to Train Robust
         Classifiers, CVPR Workshops 2020, §3
Source   none published by the authors; Westlake-AI/openmixup@37e1372,
         openmixup/models/augments/smoothmix.py:34-73
Differs  for images that are not square: σ is a fraction of the shorter side
"""

import torch
from torch import Tensor

from mixbench.contract import Method, Sources, Step
from mixbench.declare import Positive
from mixbench.errors import BadParameter
from mixbench.kernels import permutation


class SmoothMix(Method):
    """Blend a random partner into every image with Gaussian weights around a random pixel.

    Parameters
    ----------
    narrowest
        Lower end of the distribution of σ ~ U(narrowest, widest), the standard deviation of the
        window as a fraction of the shorter side of the image.
    widest
        Upper end of the distribution of σ; must be at least `narrowest`.
    """

    version = 1

    def __init__(self, narrowest: Positive = 0.25, widest: Positive = 0.5) -> None:
        super().__init__()
        if narrowest > widest:
            raise BadParameter(f"narrowest must be at most widest (got {narrowest} and {widest}).")
        self.narrowest = narrowest
        self.widest = widest

    def mix(self, x: Tensor, step: Step) -> tuple[Tensor, Sources]:
        """Return the mixed batch; the weight of the partner is the mean of the window."""
        height, width = x.shape[-2:]
        share = float(torch.rand((), generator=step.rng, dtype=torch.float64))
        sigma = (self.narrowest + (self.widest - self.narrowest) * share) * min(height, width)
        down, across = (_bell(n, sigma, step.rng) for n in (height, width))
        window = torch.outer(down, across)
        partner = permutation(len(x), step.rng, x.device)
        mixed = x.lerp(x.index_select(0, partner), window.to(x))
        return mixed, Sources.pair(partner, 1 - float(window.mean()))


def _bell(length: int, sigma: float, rng: torch.Generator) -> Tensor:
    """Return a Gaussian with maximum 1 at a random pixel of an axis, (length,)."""
    centre = torch.randint(length, (), generator=rng)
    return (-(torch.arange(length) - centre).square() / (2 * sigma**2)).exp()
