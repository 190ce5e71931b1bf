"""AlignMixup: blend the last features of two images after moving those of one to fit the other.

Paper    Venkataramanan et al., AlignMixup: Improving Representations By Interpolating Aligned
         Features, CVPR 2022, arXiv:2103.15375, §3
Source   shashankvkt/AlignMixup_CVPR22@ec01a68, cifar10_100/models/resnet18_classifier.py:12-80,
         cifar10_100/utils/OT.py:5-85
Differs  in half of the batches, which both mix at the input: there,
         Westlake-AI/openmixup@37e1372 mixes as Manifold Mixup does. Without the autoencoder of the
         paper, as in both
"""

import math
from typing import ClassVar

import torch
from torch import Tensor

from mixbench.contract import Method, Sources, Step
from mixbench.declare import Count, Positive
from mixbench.kernels import blend, permutation


class AlignMixup(Method):
    """Mix at the input as Mixup does, or blend aligned features after the last block.

    Parameters
    ----------
    alpha
        Parameter α of λ ~ Beta(α, α), the weight of the original image.
    entropy
        Weight ε of the entropy of the assignment of places: the smaller, the closer each place is
        moved to a single other place.
    iterations
        Largest number of Sinkhorn's iterations.
    """

    version = 1
    by_protocol: ClassVar = {"toy": {"iterations": 20}}
    sites = ("input", "last")

    def __init__(
        self, alpha: Positive = 2.0, entropy: Positive = 0.1, iterations: Count = 100
    ) -> None:
        super().__init__()
        self.alpha, self.entropy, self.iterations = alpha, entropy, iterations

    def mix(self, x: Tensor, step: Step) -> tuple[Tensor, Sources]:
        """Return the mixed images or features."""
        lam = step.beta(self.alpha, len(x))
        partner = permutation(len(x), step.rng, x.device)
        if step.site == "input":
            return blend(x, partner, lam), Sources.pair(partner, lam)
        keeps_own_places = bool(torch.randint(2, (), generator=step.rng))
        places = x.flatten(2).mT if x.dim() == 4 else x  # (B, N, D)
        others = places.index_select(0, partner)
        moves = assignment(places, others, self.entropy, self.iterations).to(x.dtype)
        if keeps_own_places:
            others = moves @ others
        else:
            places = moves.mT @ places
        share = float(lam)
        mixed = others.lerp(places, share)
        return (mixed.mT.reshape_as(x) if x.dim() == 4 else mixed), Sources.pair(partner, lam)


@torch.no_grad()
def assignment(own: Tensor, others: Tensor, entropy: float, iterations: int) -> Tensor:
    """Return how much of each of the others' places moves to each own place, (B, N, N).

    Sinkhorn's iterations in the logarithm, with squared distances as costs, until they change less
    than 0.1 on average over the batch, as in the source. Rows and columns sum to about 1.

    Parameters
    ----------
    own, others : (B, N, D)
        Features at each place.
    entropy
        Weight of the entropy.
    iterations
        Largest number of iterations.
    """
    gain = -torch.cdist(own.float(), others.float()).square() / entropy
    even = -math.log(gain.shape[-1])
    rows, columns = gain.new_zeros(gain.shape[:2]), gain.new_zeros(gain.shape[:2])
    for _ in range(iterations):
        before = rows
        rows = even - (gain + columns[:, None]).logsumexp(2)
        columns = even - (gain + rows[..., None]).logsumexp(1)
        if float((rows - before).abs().sum(1).mean()) * entropy < 0.1:
            break
    moves: Tensor = (gain + rows[..., None] + columns[:, None]).exp() * gain.shape[-1]
    return moves
