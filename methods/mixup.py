"""Mixup: blend two images and their targets with the same weight.

Paper    Zhang et al., mixup: Beyond Empirical Risk Minimization, ICLR 2018, arXiv:1710.09412, §2
Source   facebookresearch/mixup-cifar10@eaff31a, train.py:119-138
Differs  nothing known; as in the source, the whole batch has one λ and one permutation
"""

from typing import Literal

from torch import Tensor

from mixbench.contract import Method, Sources, Step
from mixbench.declare import Positive
from mixbench.kernels import blend, blend_rolled, permutation, rolled_index


class Mixup(Method):
    """Blend every image with a partner from the batch.

    Parameters
    ----------
    alpha
        Parameter α of λ ~ Beta(α, α), the weight of the original image. Small values give weak
        mixing.
    pairing
        How partners are chosen. ``permutation``: by a random permutation, as in the source.
        ``roll``: each image is paired with the previous one in the batch, as in torchvision; this
        is faster, and the pairs are random because batches are shuffled.
    """

    version = 1
    per_element = True

    def __init__(
        self,
        alpha: Positive = 1.0,
        pairing: Literal["permutation", "roll"] = "permutation",
    ) -> None:
        super().__init__()
        self.alpha = alpha
        self.pairing = pairing

    def mix(self, x: Tensor, step: Step) -> tuple[Tensor, Sources]:
        """Return ``λ · own + (1 - λ) · partner``."""
        lam = step.beta(self.alpha, len(x))
        if self.pairing == "roll":
            return blend_rolled(x, lam), Sources.pair(rolled_index(len(x), x.device), lam)
        partner = permutation(len(x), step.rng, x.device)
        return blend(x, partner, lam), Sources.pair(partner, lam)
