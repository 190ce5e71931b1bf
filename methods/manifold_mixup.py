"""Manifold Mixup: apply Mixup to the input or to hidden activations, chosen at random each step.

Paper    Verma et al., Manifold Mixup: Better Representations by Interpolating Hidden States,
         ICML 2019, arXiv:1806.05236, §2; layers {0, 1, 2} as in its Table 5
Source   vikasverma1077/manifold_mixup@870ef77, supervised/models/preresnet.py:101-150
Differs  in the loss: the source applies the binary cross-entropy to the softmax; this file uses the
         loss of the task, as all methods do
"""

from mixbench.declare import Positive

from .mixup import Mixup


class ManifoldMixup(Mixup):
    """Blend the images, or the activations after the first or the second block.

    Parameters
    ----------
    alpha
        Parameter α of λ ~ Beta(α, α), the weight of the original image. The default is the
        source's value for CIFAR.
    """

    version = 1
    per_element = True
    sites = ("input", "block1", "block2")

    def __init__(self, alpha: Positive = 2.0) -> None:
        super().__init__(alpha)
