"""Blend two images with a mask that a small network learns, with a loss of its own.

Paper    after Liu et al., AutoMix: Unveiling the Power of Mixup for Stronger Classifiers, ECCV 2022
Source   -
Differs  a sketch for the tests of the contract: the network sees pixels instead of features
"""

import torch
from torch import Tensor, nn

from mixbench.contract import Backbone, Method, Output, Sources, Step, Task
from mixbench.declare import NonNegative
from mixbench.kernels import permutation


class MixingBlock(Method):
    """Blend every image with a partner, with learned weights for each pixel.

    Parameters
    ----------
    pull
        Weight of the block's own loss, which pulls the mean weight of an image towards 1/2.
    """

    version = 1

    def __init__(self, pull: NonNegative = 0.1) -> None:
        super().__init__()
        self.pull = pull

    def bind(self, model: Backbone, task: Task) -> None:  # noqa: ARG002  # the contract
        """Make the block that computes the mask."""
        channels = getattr(task, "channels", 3)
        self.block = nn.Sequential(
            nn.Conv2d(2 * channels, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, 1, 1), nn.Sigmoid()
        )

    def mix(self, x: Tensor, step: Step) -> tuple[Tensor, Sources]:
        """Return the blended batch; the weights are the means of the masks."""
        partner = permutation(len(x), step.rng, x.device)
        other = x[partner]
        mask = self.block(torch.cat([x, other], 1).float())
        mixed = other.lerp(x, mask.to(x.dtype))
        return mixed, Sources.pair(partner, mask.float().mean((1, 2, 3)))

    def loss(self, output: Output, sources: Sources, step: Step) -> Tensor:
        """Return the mixed loss plus the block's own."""
        own = (sources.weight[:, 0] - 0.5).square().mean()
        return super().loss(output, sources, step) + self.pull * own
