"""ResizeMix: paste a partner image that is resized as a whole to a smaller size.

Paper    Qin et al., ResizeMix: Mixing Data with Preserved Object Information and True Labels, 2020,
         arXiv:2012.11101, §3.2
Source   the published source is no longer available; Westlake-AI/openmixup@37e1372,
         openmixup/models/augments/resizemix.py:45-112 and open-mmlab/mmpretrain@ee7f2e8,
         mmpretrain/models/utils/batch_augments/resizemix.py:81-95 are two other algorithms
Differs  from both: the scale is uniformly distributed, as in the paper, and the small image always
         lies completely inside (openmixup centres it at any pixel and resizes it to the box after
         clipping; mmpretrain draws the area from a Beta distribution). Images are downsampled
         bilinearly with antialiasing
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from mixbench.contract import Method, Sources, Step
from mixbench.declare import Fraction
from mixbench.errors import BadParameter
from mixbench.kernels import permutation


class ResizeMix(Method):
    """Downsample a random partner of every image and paste it at a position drawn per batch.

    Parameters
    ----------
    smallest
        Lower end of the distribution of τ ~ U(smallest, largest), the side of the pasted image as a
        fraction of the image side.
    largest
        Upper end of the distribution of τ; must be at least `smallest`.
    """

    version = 1
    exempt = {"identical_images_are_unchanged": "the partner is downsampled before it is pasted"}

    def __init__(self, smallest: Fraction = 0.1, largest: Fraction = 0.8) -> None:
        super().__init__()
        if smallest > largest:
            raise BadParameter(f"smallest must be at most largest (got {smallest} and {largest}).")
        self.smallest = smallest
        self.largest = largest

    def mix(self, x: Tensor, step: Step) -> tuple[Tensor, Sources]:
        """Return the mixed batch; the weight of the original image is its visible fraction."""
        draw = torch.rand(3, generator=step.rng, dtype=torch.float64).tolist()
        scale = self.smallest + (self.largest - self.smallest) * draw[0]
        height, width = x.shape[-2:]
        small = max(round(height * scale), 1), max(round(width * scale), 1)
        top = int(draw[1] * (height - small[0] + 1))
        left = int(draw[2] * (width - small[1] + 1))
        partner = permutation(len(x), step.rng, x.device)
        shrunk = F.interpolate(x.float(), small, mode="bilinear", antialias=True).to(x.dtype)
        mixed = x.clone()
        mixed[:, :, top : top + small[0], left : left + small[1]] = shrunk.index_select(0, partner)
        return mixed, Sources.pair(partner, 1 - small[0] * small[1] / (height * width))
