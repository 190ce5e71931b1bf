"""Mix in token space: exchange embedded patches with a partner, after the model has embedded them.

Paper    after Liu et al., TokenMix: Rethinking Image Mixing for Data Augmentation in Vision
         Transformers, ECCV 2022
Source   -
Differs  a sketch for the tests of the contract: the weights are the shares of the tokens
"""

import torch
from torch import Tensor

from mixbench.contract import Method, Sources, Step
from mixbench.declare import Fraction
from mixbench.kernels import permutation


class TokenMix(Method):
    """Exchange random tokens with a partner.

    Parameters
    ----------
    share
        Share of the tokens that stay, on average.
    """

    version = 1
    sites = ("tokens",)

    def __init__(self, share: Fraction = 0.6) -> None:
        super().__init__()
        self.share = share

    def mix(self, x: Tensor, step: Step) -> tuple[Tensor, Sources]:
        """Return the batch with exchanged tokens; the weights are the shares of the tokens."""
        partner = permutation(len(x), step.rng, x.device)
        own = torch.rand(x.shape[-2:], generator=step.rng).to(x.device) < self.share
        return torch.where(own, x, x[partner]), Sources.pair(partner, own.float().mean())
