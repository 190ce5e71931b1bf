"""Mixup or CutMix, chosen at random for every batch, as in the training of DeiT.

Paper    Touvron et al., Training Data-Efficient Image Transformers & Distillation Through
         Attention, ICML 2021, arXiv:2012.12877, §6 and Table 9
Source   huggingface/pytorch-image-models@aa4b585, timm/data/mixup.py:90-200, with DeiT's settings
Differs  in the pairing: this file pairs images by a permutation, the source mixes the batch with
         itself in reversed order; and in label smoothing, which the source applies in the same
         class and this file does not, because it is a setting of the recipe. Under rsb_a3, α of
         Mixup is that of its paper (arXiv:2110.00476, Table 2)
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mixbench.contract import Method, Sources, Step
from mixbench.declare import Fraction, Positive

from .cutmix import CutMix
from .mixup import Mixup


class OneOf(Method):
    """Mix every batch with one of two methods.

    To choose among other methods, write a subclass whose ``__init__`` sets `choices` and their
    probabilities `shares`. The methods must mix the input, add no heads and not change the loss.

    Parameters
    ----------
    mixup_alpha
        Parameter α of λ ~ Beta(α, α) for batches that are mixed with Mixup.
    cutmix_alpha
        Parameter α of λ ~ Beta(α, α) for batches that are mixed with CutMix.
    switch_prob
        Probability that a batch is mixed with CutMix instead of Mixup.
    """

    version = 1
    per_element = True
    recipe_of = (*("deit", "convnext", "rsb_a3", "quick_deit", "quick_convnext", "quick_rsb_a3"),)
    by_protocol = {"rsb_a3": {"mixup_alpha": 0.1}, "quick_rsb_a3": {"mixup_alpha": 0.1}}

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
        """Return the batch mixed with the sampled method."""
        shares = torch.tensor(self.shares, dtype=torch.float64)
        if step.per_element:
            return self.mix_each(x, shares, step)
        drawn = int(torch.multinomial(shares, 1, generator=step.rng))
        return self.choices[drawn].mix(x, step)

    def mix_each(self, x: Tensor, shares: Tensor, step: Step) -> tuple[Tensor, Sources]:
        """Return the batch with the sampled method of each item."""
        drawn = torch.multinomial(shares, len(x), replacement=True, generator=step.rng)
        mixes = [method.mix(x, step) for method in self.choices]
        width = max(sources.index.shape[1] for _, sources in mixes)
        mixed, index, weight = torch.empty_like(x), *_padded(mixes[0][1], width)
        for number, (images, sources) in enumerate(mixes):
            here = (drawn == number).to(x.device)[:, None]
            own_index, own_weight = _padded(sources, width)
            mixed = torch.where(here[..., None, None], images, mixed)
            index = torch.where(here, own_index, index)
            weight = torch.where(here, own_weight, weight)
        return mixed, Sources(index, weight)


def _padded(sources: Sources, width: int) -> tuple[Tensor, Tensor]:
    """Return indices and weights of this many sources, where added ones have weight 0."""
    missing = width - sources.index.shape[1]
    return F.pad(sources.index, (0, missing)), F.pad(sources.weight, (0, missing))
