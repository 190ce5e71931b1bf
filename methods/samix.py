"""SAMix: AutoMix with λ inside the features, and masks that are to vary.

Paper    Li et al., Boosting Discriminative Visual Representation Learning with Scenario-Agnostic
         Mixup, arXiv:2111.15454, §3
Source   Westlake-AI/openmixup@37e1372, openmixup/models/heads/pmix_block.py:230-385,
         configs/classification/cifar100/samix
Differs  as AutoMix does. Without the weight η of the negative classes: with the loss of the
         source's settings, it has no effect there either
"""

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from mixbench.declare import Fraction, NonNegative, Positive

from .automix import AutoMix, small_weights


class SAMix(AutoMix):
    """Mix by a mask that depends on λ, and that a loss makes vary over the image.

    Parameters
    ----------
    alpha
        Parameter α of λ ~ Beta(α, α). One λ is drawn for the model, and one for the masks.
    rescale
        How strongly λ in the features is bent towards one half, below which nothing is bent: 0.25
        in the source for CIFAR-100, -1 for ImageNet.
    mask_weight
        Weight of the loss of the masks.
    mask_margin
        Difference between the mean of the masks and λ that costs nothing.
    variance
        Weight of the variance of the masks within their loss.
    lam_margin
        A λ that is closer to 0 or 1 mixes by Mixup.
    """

    version = 1
    upsampling: ClassVar[Literal["nearest", "bilinear"]] = "bilinear"

    def __init__(  # the parameters of the source
        self,
        alpha: Positive = 2.0,
        rescale: float = 0.25,
        mask_weight: NonNegative = 0.1,
        mask_margin: Fraction = 0.1,
        variance: NonNegative = 2.0,
        lam_margin: Fraction = 0.08,
    ) -> None:
        super().__init__(alpha, "none", mask_weight, mask_margin, lam_margin)
        self.rescale, self.variance = rescale, variance

    def make_block(self, channels: int) -> None:
        """Create the layers of the block: queries and keys see both images."""
        half = max(channels // 2, 1)
        self.query, self.key = nn.Conv2d(2 * channels, half, 1), nn.Conv2d(2 * channels, half, 1)
        self.value = nn.Sequential(
            nn.Conv2d(channels, half, 1, bias=False),
            nn.BatchNorm2d(half),
            nn.ELU(),
            nn.Conv2d(half, 1, 1, bias=False),
        )
        self.apply(small_weights)

    def scores(self, own: Tensor, other: Tensor, lam: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values of two feature maps, scaled by λ."""
        if self.rescale >= 0:
            k = self.rescale + 1
            lam = (4 / 3 * lam**3 - 2 * lam**2 + k * lam) / (k - 2 / 3)
        own, other = own * (1 + lam), other * (2 - lam)
        both = torch.cat([own, other], 1)
        return self.query(both), self.key(both), self.value(other)

    def mask_loss(self, mask: Tensor, lam: Tensor) -> Tensor:
        """Return the loss of the mean of the masks, minus that of their variance, a scalar."""
        return super().mask_loss(mask, lam) - self.variance * mask.var(correction=0)
