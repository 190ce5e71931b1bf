"""One of several: Mixup or CutMix, drawn anew for every batch, as DeiT trains.

Paper    Touvron et al., Training Data-Efficient Image Transformers & Distillation Through
         Attention, ICML 2021, arXiv:2012.12877, §6 and Table 9
Source   huggingface/pytorch-image-models@aa4b585, timm/data/mixup.py:90-200, with DeiT's settings
Differs  in pairing: a permutation, where the source mixes the batch with itself turned round; in
         label smoothing, which is the recipe's and not the method's, and so none
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from mixbench.contract import Method, Sources, Step
from mixbench.declare import Fraction, Positive

from .cutmix import CutMix
from .mixup import Mixup


class OneOf(Method):
    """Mix every batch by one of two methods.

    Another switch is a subclass whose ``__init__`` sets other `choices` and their `shares`; they
    may be any methods that mix the input, add no heads and keep the loss.

    Parameters
    ----------
    mixup_alpha, cutmix_alpha
        λ ~ Beta(α, α) of either.
    switch_prob
        How often it is CutMix.
    """

    version = 1

    def __init__(
        self,
        mixup_alpha: Positive = 0.8,
        cutmix_alpha: Positive = 1.0,
        switch_prob: Fraction = 0.5,
    ) -> None:
        super().__init__()
        self.choices: Sequence[Method] = (Mixup(mixup_alpha), CutMix(cutmix_alpha))
        self.shares = (1 - switch_prob, switch_prob)

    def mix(self, x: Tensor, step: Step) -> tuple[Tensor, Sources]:
        """Return the batch as the method that was drawn mixes it."""
        shares = torch.tensor(self.shares, dtype=torch.float64)
        drawn = int(torch.multinomial(shares, 1, generator=step.rng))
        return self.choices[drawn].mix(x, step)
