"""AttentiveMix: paste the places of an image that a trained network attends to most.

Paper    Walawalkar et al., Attentive CutMix: An Enhanced Data Augmentation Approach for Deep
         Learning Based Image Classification, ICASSP 2020, arXiv:2003.13048
Source   xden2331/attentive_cutmix@55e133e, attentive_transform.py:19-74, which is not the authors';
         Westlake-AI/openmixup@37e1372, openmixup/models/augments/attentivemix.py:6-82
Differs  in the network: both sources ask a ResNet with ImageNet weights, at 224 pixels; this file
         asks a model that was trained without mixing on the same images, whose training counts as
         cost, and the grid is that of its last feature map. It runs in evaluation mode, where both
         sources normalise by the batch
"""

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from mixbench.contract import Method, Sources, Step
from mixbench.declare import Need, Positive, PositiveFraction
from mixbench.kernels import beta, permutation


class AttentiveMix(Method):
    """Paste the most attended places of each image over a random partner.

    Parameters
    ----------
    share
        Share of the places that are pasted; the paper has 6 of 49.
    lam
        How their share is chosen: ``fixed``, as in the paper, or ``beta``, a λ ~ Beta(α, α), as in
        openmixup, where the method is called AttentiveMix+.
    alpha
        Parameter α of that distribution; without effect if `lam` is ``fixed``.
    channels
        What counts as attention: the ``mean`` of the channels of the last feature map, as in
        openmixup, or its ``last_channel``, as in the other source.
    """

    version = 1
    needs: ClassVar = {"teacher": Need(method="none")}

    def __init__(
        self,
        share: PositiveFraction = 0.1224,
        lam: Literal["fixed", "beta"] = "fixed",
        alpha: Positive = 2.0,
        channels: Literal["mean", "last_channel"] = "mean",
    ) -> None:
        super().__init__()
        self.share, self.lam, self.alpha, self.channels = share, lam, alpha, channels

    def mix(self, x: Tensor, step: Step) -> tuple[Tensor, Sources]:
        """Return the mixed batch; the weights are the fractions of pixels."""
        share = self.share if self.lam == "fixed" else float(beta(self.alpha, step.rng))
        partner = permutation(len(x), step.rng, x.device)
        features = step.ask(step.teachers["teacher"]).features.float()
        seen = features.mean(1) if self.channels == "mean" else features[:, -1]
        number = min(max(round(share * math.prod(seen.shape[1:])), 1), seen[0].numel())
        places = torch.zeros_like(seen).flatten(1)
        places.scatter_(1, seen.flatten(1).topk(number).indices, 1)
        pixels = interpolate(places.view_as(seen)[:, None], x.shape[-2:])  # the nearest place
        mixed = torch.where(pixels > 0, x, x.index_select(0, partner))
        return mixed, Sources.pair(partner, pixels.mean((1, 2, 3)))
