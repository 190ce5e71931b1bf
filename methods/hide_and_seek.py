"""Hide-and-Seek: black out random squares of a grid, without mixing; a control for pasting methods.

Paper    Singh & Lee, Hide-and-Seek: Forcing a Network to be Meticulous for Weakly-supervised Object
         and Action Localization, ICCV 2017, arXiv:1704.04232, §3.1
Source   kkanshul/Hide-and-Seek@7f2a919, hide_patch.py:7-33
Differs  in the size: the sides of the squares are fractions of the shorter side of the image, which
         are those of the source for images of 224 pixels. As in the source, each image has a size
         of its own, none in one of five cases, and hidden pixels are zero, the mean of normalized
         images. clovaai/wsolevaluation@96f4b88, wsol/method/has.py:10-31, has one size for all
         images: ``side_frac``, with 0.536 and a probability of 0.66 for a ResNet-50 on birds
"""

import torch
from torch import Tensor

from mixbench.contract import Method, Sources, Step
from mixbench.declare import Fraction

SIDES = tuple(side / 224 for side in (16, 32, 44, 56))  # each as likely as no hiding


class HideAndSeek(Method):
    """Divide every image into squares, and set each of them to zero at random.

    Parameters
    ----------
    hide_prob
        Probability that a square is hidden.
    side_frac
        Side of all squares as a fraction of the image's shorter side; 0 draws one of the source's
        five sizes for each image.
    """

    version = 1
    added = ("side_frac",)
    exempt = {
        "weights_match_pixels": "the label does not change when pixels are removed",
        "identical_images_are_unchanged": "squares of every image are set to zero",
    }

    def __init__(self, hide_prob: Fraction = 0.5, side_frac: Fraction = 0.0) -> None:
        super().__init__()
        self.hide_prob, self.side_frac = hide_prob, side_frac

    def mix(self, x: Tensor, step: Step) -> tuple[Tensor, Sources]:
        """Return the images with hidden squares; the only source of each image is itself."""
        size, (height, width) = len(x), x.shape[-2:]
        masks = [] if self.side_frac else [torch.zeros(size, height, width, dtype=torch.bool)]
        for fraction in (self.side_frac,) if self.side_frac else SIDES:
            side = max(round(fraction * min(height, width)), 1)
            cells = size, -(-height // side), -(-width // side)
            hidden = torch.rand(cells, generator=step.rng) < self.hide_prob
            pixels = hidden.repeat_interleave(side, 1).repeat_interleave(side, 2)
            masks.append(pixels[:, :height, :width])
        chosen = torch.randint(len(masks), (size,), generator=step.rng)
        mask = torch.stack(masks)[chosen, torch.arange(size)].to(x.device)
        return x.masked_fill(mask[:, None], 0), Sources.unmixed(x)
