"""PatchUp: mix blocks of the hidden activations; at the input, paste a box as CutMix does.

Paper    Faramarzi et al., PatchUp: A Feature-Space Block-Level Regularization Technique for
         Convolutional Neural Networks, AAAI 2022, arXiv:2006.07794, §3
Source   chandar-lab/PatchUp@31133f3, modules/patchup.py:43-137, models/preresnet.py:139-196,
         main.py:236-258
Differs  in the places: the input and the first two blocks, where the source has the input, the
         stem and the first block. γ is adjusted at each place (the source keeps that of the first
         it met) and for maps that are not square. The loss is the task's on the reweighted targets;
         the source adds the loss on either target by its share, which is the same number again for
         every loss that is linear in its targets, and so doubles the learning rate
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from mixbench.contract import Sources, Step
from mixbench.declare import Count, Fraction
from mixbench.errors import BadParameter
from mixbench.kernels import beta, permutation

from .cutmix import CutMix


class PatchUp(CutMix):
    """Mix blocks of every channel with those of a random partner: the same in the whole batch.

    Parameters
    ----------
    mode
        In the blocks, ``soft`` blends the two by λ ~ Beta(2, 2), ``hard`` takes the partner's.
    gamma
        The expected share of a map that blocks would cover if they did not overlap; the source
        takes 0.75 for soft and 0.5 for hard.
    prob
        Of mixing a batch at all; the source takes 1 for soft and 0.7 for hard.
    block
        The side of a block, an odd number of places; in smaller maps, the largest that fits.
    """

    version = 1
    sites = ("input", "block1", "block2")
    exempt = {
        "labels_say_what_the_pixels_hold": "blocks differ by channel, and the label has their mean"
    }

    def __init__(
        self,
        mode: Literal["soft", "hard"] = "soft",
        gamma: Fraction = 0.75,
        prob: Fraction = 1.0,
        block: Count = 7,
    ) -> None:
        super().__init__(prob=prob)
        if block % 2 == 0:
            raise BadParameter(f"block must be odd, so that it has a centre (got {block}).")
        self.mode = mode
        self.gamma = gamma
        self.block = block

    def mix(self, x: Tensor, step: Step) -> tuple[Tensor, Sources]:
        """Return the mixed batch; the weight is what is left of the own activations."""
        if step.site == "input":
            return super().mix(x, step)
        skipped = torch.rand((), generator=step.rng) >= self.prob
        lam = float(beta(2.0, step.rng)) if self.mode == "soft" else 0.0
        altered = self.blocks(x.shape[1:], step.rng).to(x.device)
        partner = permutation(len(x), step.rng, x.device)
        if skipped:
            return x, Sources.alone(x)
        mixed = torch.where(altered, x.index_select(0, partner).lerp(x, lam), x)
        return mixed, Sources.pair(partner, 1 - (1 - lam) * altered.float().mean())

    def blocks(self, shape: torch.Size, rng: torch.Generator) -> Tensor:
        """Draw which activations lie in blocks, (C, H, W) bool."""
        height, width = shape[-2:]
        side = min(self.block, height - 1 + height % 2, width - 1 + width % 2)
        room = (height - side + 1) * (width - side + 1)
        rate = self.gamma * height * width / (side**2 * room)
        centres = (torch.rand(shape, generator=rng) < rate).float()
        return F.max_pool2d(centres, side, stride=1, padding=side // 2) > 0
