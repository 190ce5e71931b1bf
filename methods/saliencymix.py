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

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from mixbench.contract import Method, Sources, Step
from mixbench.declare import Fraction, Positive
from mixbench.kernels import beta, box_masks, permutation

NEIGHBOURHOODS = 12, 24, 48, 28, 56, 112  # half the sides of the neighbourhoods, in pixels
CACHED = 2**16  # pixels whose sums fit into the cache of a core


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

    version = 2

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
    # A CPU takes few images at a time, so that all sums of their pixels stay in its cache.
    few = max(CACHED // x[0, 0].numel(), 1) if x.device.type == "cpu" else len(x)
    weights = [_weights((x.shape[-2], x.shape[-1]), reach, x.device) for reach in NEIGHBOURHOODS]
    return torch.cat([_contrast(_grey(images.float()), weights) for images in x.split(few)])


def _contrast(grey: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """Return the contrast of every pixel of greyscale images, (B, H, W); see `_weights`."""
    grey = _smooth(_smooth(grey, 1), 2)
    # Around zero, sums of float32 are exact enough, and contrasts do not change.
    grey -= grey.mean((1, 2), keepdim=True)
    sums = F.pad(grey, (1, 0, 1, 0)).cumsum(1).cumsum(2)
    brighter, difference = torch.zeros_like(grey), torch.zeros_like(grey)
    for reach, weight in zip(NEIGHBOURHOODS, weights, strict=True):
        total = _windows(_windows(sums, reach, 1), reach, 2)
        # The pixel minus the mean of the others in its window.
        contrast = torch.sub(grey, total, out=total).mul_(weight).add_(grey)
        difference += contrast
        brighter += contrast.relu_()
    return _in_parts(brighter) + _in_parts((brighter - difference).relu_())


def _grey(x: Tensor) -> Tensor:
    """Return greyscale images, (B, H, W): OpenCV's weights for 3 channels, else the mean."""
    if x.shape[1] != 3:
        return x.mean(1)
    weights = torch.tensor([0.114, 0.587, 0.299], device=x.device)
    return torch.einsum("bchw,c->bhw", x, weights)


def _smooth(grey: Tensor, axis: int) -> Tensor:
    """Blur twice with the weights 1/4, 1/2, 1/4 along an axis, with reflection at the edges."""
    for _ in range(2 if grey.shape[axis] > 1 else 0):
        blurred = grey / 2
        length = grey.shape[axis]
        blurred.narrow(axis, 1, length - 1).add_(grey.narrow(axis, 0, length - 1), alpha=0.25)
        blurred.narrow(axis, 0, length - 1).add_(grey.narrow(axis, 1, length - 1), alpha=0.25)
        blurred.select(axis, 0).add_(grey.select(axis, 1), alpha=0.25)
        blurred.select(axis, -1).add_(grey.select(axis, -2), alpha=0.25)
        grey = blurred
    return grey


def _windows(sums: Tensor, reach: int, axis: int) -> Tensor:
    """Return the sum over the window of every pixel along an axis.

    Windows extend one pixel further after the pixel than before it.

    Parameters
    ----------
    sums : (B, H + 1, ...)
        Sum of all pixels before each position along the axis.
    reach : pixels
        Half the length of the windows.
    axis
        The axis, whose length becomes that of the images.
    """
    length = sums.shape[axis] - 1
    # The first pixel whose window ends at the edge, and the first whose window begins inside.
    ends, begins = max(length - reach - 1, 0), min(reach - 1, length)
    first, last = min(ends, begins), max(ends, begins)

    def part(whole: Tensor, start: int, stop: int) -> Tensor:
        return whole.narrow(axis, start, stop - start)

    end = part(sums, length, length + 1)
    found = torch.empty_like(part(sums, 0, length))
    part(found, 0, first).copy_(part(sums, length - ends, length - ends + first))
    if ends < begins:
        part(found, first, last).copy_(end)
    else:
        upto, before = part(sums, length - ends + first, length), part(sums, 0, last - first)
        torch.sub(upto, before, out=part(found, first, last))
    torch.sub(end, part(sums, last - begins, length - begins), out=part(found, last, length))
    return found


def _weights(size: tuple[int, int], reach: int, device: torch.device) -> Tensor:
    """Return 1 / the number of other pixels in the window of every pixel, (H, W)."""
    lengths = []
    for length in size:
        places = torch.arange(length, device=device)
        after, before = (places + reach + 1).clamp_max(length), (places - reach + 1).clamp_min(0)
        lengths.append(after - before)
    return 1 / (lengths[0][:, None] * lengths[1] - 1).clamp_min(1)


def _in_parts(contrast: Tensor) -> Tensor:
    """Divide by the maximum of each image, (B, H, W); images of zeros stay zero."""
    return contrast / contrast.amax((1, 2), keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
