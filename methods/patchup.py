"""PatchUp: mix blocks of hidden activations, or paste a box into the input as CutMix does.

Paper    Faramarzi et al., PatchUp: A Feature-Space Block-Level Regularization Technique for
         Convolutional Neural Networks, AAAI 2022, arXiv:2006.07794, §3
Source   chandar-lab/PatchUp@31133f3, modules/patchup.py:43-137, models/preresnet.py:139-196,
         main.py:236-258
Differs  in the sites: this file mixes at the input and after the first two blocks, the source at
         the input, after the stem and after the first block. γ is adjusted for the size of the
         feature map at each site (the source keeps the value of the first site that it visits) and
         for feature maps that are not square. The loss is the task's loss on the reweighted
         targets; the source adds the weighted sum of the losses on the two targets, which has the
         same value for every loss that is linear in its targets and so doubles the learning rate
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
    """Mix blocks of every channel with a random partner; the blocks are the same for all images.

    Parameters
    ----------
    mode
        How activations inside the blocks are mixed. ``soft``: blend them with λ ~ Beta(2, 2).
        ``hard``: replace them with those of the partner.
    gamma
        Expected fraction of a feature map that the blocks would cover if they did not overlap. The
        source uses 0.75 for soft and 0.5 for hard.
    prob
        Probability of mixing a batch. The source uses 1 for soft and 0.7 for hard.
    block
        Side of a block, an odd number of positions of the feature map. In smaller feature maps, the
        largest odd side that fits is used.
    """

    version = 1
    sites = ("input", "block1", "block2")
    exempt = {"weights_match_pixels": "channels have different blocks; the label is the mean"}

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
        """Return the mixed batch; the weight is the remaining fraction of the activations."""
        if step.site == "input":
            return super().mix(x, step)
        skipped = torch.rand((), generator=step.rng) >= self.prob
        lam = float(beta(2.0, step.rng)) if self.mode == "soft" else 0.0
        altered = self.blocks(x.shape[1:], step.rng).to(x.device)
        partner = permutation(len(x), step.rng, x.device)
        if skipped:
            return x, Sources.unmixed(x)
        mixed = torch.where(altered, x.index_select(0, partner).lerp(x, lam), x)
        return mixed, Sources.pair(partner, 1 - (1 - lam) * altered.float().mean())

    def blocks(self, shape: torch.Size, rng: torch.Generator) -> Tensor:
        """Draw a mask of the activations that lie inside blocks, (C, H, W) bool."""
        height, width = shape[-2:]
        side = min(self.block, height - 1 + height % 2, width - 1 + width % 2)
        room = (height - side + 1) * (width - side + 1)
        rate = self.gamma * height * width / (side**2 * room)
        centres = (torch.rand(shape, generator=rng) < rate).float()
        return F.max_pool2d(centres, side, stride=1, padding=side // 2) > 0
