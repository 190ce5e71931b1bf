"""SmoothMix: paste a partner through a Gaussian window, so that no edge is seen.

Paper    Lee et al., SmoothMix: A Simple Yet Effective Data Augmentation to Train Robust
         Classifiers, CVPR Workshops 2020, §3
Source   none published by the authors; Westlake-AI/openmixup@37e1372,
         openmixup/models/augments/smoothmix.py:34-73
Differs  in images that are not square: σ is in parts of the shorter side
"""

import torch
from torch import Tensor

from mixbench.contract import Method, Sources, Step
from mixbench.declare import Positive
from mixbench.errors import BadParameter
from mixbench.kernels import permutation


class SmoothMix(Method):
    """Blend a random partner into every image, fully at one place and less and less around it.

    Parameters
    ----------
    narrowest, widest
        σ ~ U(narrowest, widest), as a share of the image's shorter side.
    """

    version = 1

    def __init__(self, narrowest: Positive = 0.25, widest: Positive = 0.5) -> None:
        super().__init__()
        if narrowest > widest:
            raise BadParameter(f"narrowest must be at most widest (got {narrowest} and {widest}).")
        self.narrowest = narrowest
        self.widest = widest

    def mix(self, x: Tensor, step: Step) -> tuple[Tensor, Sources]:
        """Return the blended batch; the partner's weight is the window's mean."""
        height, width = x.shape[-2:]
        share = float(torch.rand((), generator=step.rng, dtype=torch.float64))
        sigma = (self.narrowest + (self.widest - self.narrowest) * share) * min(height, width)
        down, across = (_bell(n, sigma, step.rng) for n in (height, width))
        window = torch.outer(down, across)
        partner = permutation(len(x), step.rng, x.device)
        mixed = x.lerp(x.index_select(0, partner), window.to(x))
        return mixed, Sources.pair(partner, 1 - float(window.mean()))


def _bell(length: int, sigma: float, rng: torch.Generator) -> Tensor:
    """Return a Gaussian of height 1 around a random pixel of an axis, (length,)."""
    centre = torch.randint(length, (), generator=rng)
    return (-(torch.arange(length) - centre).square() / (2 * sigma**2)).exp()
