"""Mixup: a convex combination of two images, and of their targets.

Paper    Zhang et al., mixup: Beyond Empirical Risk Minimization, ICLR 2018, arXiv:1710.09412, §2
Source   facebookresearch/mixup-cifar10@eaff31a, train.py:119-138
Differs  nothing known; as there, one λ and one permutation for the whole batch
"""

from typing import Literal

from torch import Tensor

from mixbench.contract import Method, Sources, Step
from mixbench.declare import Positive
from mixbench.kernels import beta, blend, blend_rolled, permutation, rolled


class Mixup(Method):
    """Blend every image with a partner from the batch.

    Parameters
    ----------
    alpha
        λ ~ Beta(α, α) is the share of the own image; small values mix little.
    pairing
        A random ``permutation``, as in the source, or every image with the one before it, as
        torchvision pairs (``roll``): faster, and as random, since batches are drawn at random.
    """

    version = 1

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
        lam = float(beta(self.alpha, step.rng))
        if self.pairing == "roll":
            return blend_rolled(x, lam), Sources.pair(rolled(len(x), x.device), lam)
        partner = permutation(len(x), step.rng, x.device)
        return blend(x, partner, lam), Sources.pair(partner, lam)
