"""Manifold Mixup: Mixup at a depth of the network that is drawn anew in each step.

Paper    Verma et al., Manifold Mixup: Better Representations by Interpolating Hidden States,
         ICML 2019, arXiv:1806.05236, §2; layers {0, 1, 2} as in its Table 5
Source   vikasverma1077/manifold_mixup@870ef77, supervised/models/preresnet.py:101-150
Differs  in the loss: the source trains binary cross-entropy on the softmax, here it is the task's
         own loss, the same for every method
"""

from mixbench.declare import Positive

from .mixup import Mixup


class ManifoldMixup(Mixup):
    """Blend the images, or the activations after the first or second block.

    Parameters
    ----------
    alpha
        λ ~ Beta(α, α); the source's value for CIFAR.
    """

    version = 1
    sites = ("input", "block1", "block2")

    def __init__(self, alpha: Positive = 2.0) -> None:
        super().__init__(alpha)
