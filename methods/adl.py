"""ADL: hide the most attended features, or weight them by attention, without mixing.

Paper    Choe & Shim, Attention-based Dropout Layer for Weakly Supervised Object Localization, CVPR
         2019, arXiv:1908.10028, §3
Source   clovaai/wsolevaluation@96f4b88, wsol/method/adl.py:11-47
Differs  in the places: each step changes the features after the third block or after the last one,
         drawn at random; the source has such a layer at three places of a ResNet-50 (in the third
         block once, in the fourth twice), and all of them change the features in each step
"""

import torch
from torch import Tensor

from mixbench.contract import Method, Sources, Step
from mixbench.declare import Fraction


class AttentionDropout(Method):
    """Set the strongest places of a feature map to zero, or weight all places.

    The attention to a place is the mean of its channels.

    Parameters
    ----------
    drop_prob
        Probability that a step hides the strongest places; otherwise, it multiplies each place by
        the sigmoid of its attention.
    threshold
        Fraction of an image's largest attention from which on a place is hidden.
    """

    version = 1
    sites = ("block3", "last")
    exempt = {
        "weights_match_pixels": "the label does not change when features are hidden",
        "identical_images_are_unchanged": "features of every image are hidden or weighted",
    }

    def __init__(self, drop_prob: Fraction = 0.75, threshold: Fraction = 0.9) -> None:
        super().__init__()
        self.drop_prob, self.threshold = drop_prob, threshold

    def mix(self, x: Tensor, step: Step) -> tuple[Tensor, Sources]:
        """Return the changed features; the only source of each image is itself."""
        hides = float(torch.rand((), generator=step.rng)) < self.drop_prob
        attention = x.mean(1 if x.dim() == 4 else 2, keepdim=True)  # channels, or those of tokens
        if hides:
            most = attention.flatten(1).amax(1).view(-1, *[1] * (x.dim() - 1))
            weight = (attention < self.threshold * most).to(x.dtype)
        else:
            weight = attention.sigmoid()
        return x * weight, Sources.unmixed(x)
