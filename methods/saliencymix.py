"""SaliencyMix: CutMix with a box around the most salient pixel of the partner.

Paper    Uddin et al., SaliencyMix: A Saliency Guided Data Augmentation Strategy for Better
         Regularization, ICLR 2021, arXiv:2006.01791, §3.2; saliency by Montabone & Soto, Human
         Detection Using a Mobile Platform and Novel Features Derived from a Visual Saliency
         Mechanism, 2010
Source   afm-shahab-uddin/SaliencyMix@9ee02b8, SaliencyMix_CIFAR/saliencymix.py:191-248;
         opencv/opencv_contrib@73c03fd, modules/saliency/src/staticSaliencyFineGrained.cpp:81-296
Differs  in the saliency map: every image has its own, as in the paper; the source uses that of one
         image for the whole batch (`per_image=false`). In its input: the source passes normalized
         floats to OpenCV, which reads their bytes as pixels, so that the map is unrelated to the
         image (correlation below 0.05 with the map of the same image in bytes, verified by running
         it); this file computes it from the image. In rounding: OpenCV rounds down at every scale;
         this file does not round
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from mixbench.contract import Method, Sources, Step
from mixbench.declare import Fraction, Positive
from mixbench.kernels import beta, box_masks, permutation

NEIGHBOURHOODS = 12, 24, 48, 28, 56, 112  # half the sides of the neighbourhoods, in pixels


class SaliencyMix(Method):
    """Paste a box of a random partner, taken around the partner's most salient pixel.

    Parameters
    ----------
    alpha
        Parameter α of λ ~ Beta(α, α), the fraction of the image outside the box before the box is
        clipped at the image edges.
    prob
        Probability of mixing a batch. The default is the source's value for CIFAR.
    per_image
        Whether each box is centred on the most salient pixel of its own partner. If false, all
        boxes are centred on that of the first partner in the batch.
    """

    version = 1

    def __init__(
        self, alpha: Positive = 1.0, prob: Fraction = 0.5, *, per_image: bool = True
    ) -> None:
        super().__init__()
        self.alpha = alpha
        self.prob = prob
        self.per_image = per_image

    def mix(self, x: Tensor, step: Step) -> tuple[Tensor, Sources]:
        """Return the mixed batch; the weights are the fractions of pixels after clipping."""
        size, (height, width) = len(x), x.shape[-2:]
        skipped = torch.rand((), generator=step.rng) >= self.prob
        side = float(1 - beta(self.alpha, step.rng)) ** 0.5
        partner = permutation(size, step.rng, x.device)
        if skipped:
            return x, Sources.unmixed(x)
        seen = x.index_select(0, partner if self.per_image else partner[:1])
        peak = saliency(seen).flatten(1).argmax(1).expand(size)
        half = int(height * side) // 2, int(width * side) // 2
        pasted = box_masks((peak // width, peak % width), half, (height, width))[:, None]
        mixed = torch.where(pasted, x.index_select(0, partner), x)
        return mixed, Sources.pair(partner, 1 - pasted.float().mean((1, 2, 3)))


def saliency(x: Tensor) -> Tensor:
    """Return the contrast of every pixel to its neighbourhoods, (B, H, W) in [0, 2].

    Contrasts of pixels that are brighter than their neighbourhoods and of those that are darker are
    summed separately, divided by their maximum over the image, and then added.
    """
    grey = _smooth(_smooth(_grey(x.float())))[:, 0]
    brighter, darker = torch.zeros_like(grey), torch.zeros_like(grey)
    sums = F.pad(grey.double(), (1, 0, 1, 0)).cumsum(1).cumsum(2)
    for reach in NEIGHBOURHOODS:
        contrast = grey - _surround(grey, sums, reach)
        brighter += contrast.clamp_min(0)
        darker -= contrast.clamp_max(0)
    return _in_parts(brighter) + _in_parts(darker)


def _grey(x: Tensor) -> Tensor:
    """Return greyscale images, (B, 1, H, W): OpenCV's weights for 3 channels, else the mean."""
    if x.shape[1] != 3:
        return x.mean(1, keepdim=True)
    weights = torch.tensor([0.114, 0.587, 0.299], device=x.device)
    return torch.einsum("bchw,c->bhw", x, weights)[:, None]


def _smooth(grey: Tensor) -> Tensor:
    """Blur with a 3 x 3 Gaussian kernel and reflection padding, (B, 1, H, W)."""
    weights = torch.tensor([0.25, 0.5, 0.25], device=grey.device)
    height, width = grey.shape[-2:]
    sides = "reflect" if min(height, width) > 1 else "replicate"
    padded = F.pad(grey, (1, 1, 1, 1), mode=sides)
    return F.conv2d(padded, torch.outer(weights, weights)[None, None])


def _surround(grey: Tensor, sums: Tensor, reach: int) -> Tensor:
    """Return the mean of the pixels at most `reach` away, without the pixel itself, (B, H, W).

    Parameters
    ----------
    grey : (B, H, W)
        Greyscale images.
    sums : (B, H + 1, W + 1)
        Integral images: the sum of all pixels above and to the left of each position.
    reach : pixels
        Half the side of the neighbourhood.
    """
    height, width = grey.shape[-2:]
    (top, bottom), (left, right) = (_range(n, reach, grey.device) for n in (height, width))
    high, low = sums[:, bottom], sums[:, top]
    total = high[..., right] - high[..., left] - low[..., right] + low[..., left]
    number = (bottom - top)[:, None] * (right - left) - 1
    return ((total - grey) / number.clamp_min(1)).float()


def _range(length: int, reach: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the first pixel and the end (exclusive) of each neighbourhood along an axis.

    Neighbourhoods extend one pixel further after the centre than before it.
    """
    places = torch.arange(length, device=device)
    return (places - reach + 1).clamp_min(0), (places + reach + 1).clamp_max(length)


def _in_parts(contrast: Tensor) -> Tensor:
    """Divide by the maximum of each image, (B, H, W); images of zeros stay zero."""
    return contrast / contrast.amax((1, 2), keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
