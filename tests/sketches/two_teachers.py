"""Mixup whose predictions also follow a trained teacher and an average of the model itself.

Paper    after Tarvainen & Valpola, Mean Teachers Are Better Role Models, NIPS 2017
Source   -
Differs  a sketch for the tests of the contract: with mixing, and with a second, trained teacher
"""

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import kl_div

from mixbench.contract import Method, Output, Sources, Step
from mixbench.declare import Need, NonNegative, Positive
from mixbench.kernels import blend, permutation


class TwoTeachers(Method):
    """Blend images, and learn the blended predictions of two teachers for the unmixed images.

    Parameters
    ----------
    alpha
        Parameter of λ ~ Beta(α, α), the weight of the original image.
    pull
        Weight of the loss that compares predictions with those of the teachers.
    """

    version = 1
    needs: ClassVar = {"teacher": Need(method="none")}
    ema_decay = 0.99

    def __init__(self, alpha: Positive = 1.0, pull: NonNegative = 0.1) -> None:
        super().__init__()
        self.alpha, self.pull = alpha, pull

    def mix(self, x: Tensor, step: Step) -> tuple[Tensor, Sources]:
        """Return the blended batch."""
        lam = step.beta(self.alpha, len(x))
        partner = permutation(len(x), step.rng, x.device)
        return blend(x, partner, lam), Sources.pair(partner, lam)

    def loss(self, output: Output, sources: Sources, step: Step) -> Tensor:
        """Return the mixed loss plus the distance to the teachers' mixed predictions."""
        assert step.ema is not None
        with torch.no_grad():
            taught = step.teachers["teacher"](step.images).out.softmax(-1)
            taught = (taught + step.ema(step.images).out.softmax(-1)) / 2
            wanted = (taught[sources.index] * sources.weight[..., None]).sum(1)
        distance = kl_div(output.out.log_softmax(-1), wanted, reduction="batchmean")
        return super().loss(output, sources, step) + self.pull * distance
