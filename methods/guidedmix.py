"""GuidedMixup: blend each pixel of two images in proportion to their saliency there.

Paper    Kang & Kim, GuidedMixup: An Efficient Mixup Strategy Guided by Saliency Maps, AAAI 2023,
         arXiv:2306.16612, §3; spectral residuals by Hou & Zhang, Saliency Detection: A Spectral
         Residual Approach, CVPR 2007
Source   3neutronstar/GuidedMixup@73494e1, mixup.py:21-64 and 234-272, pairing.pyx:9-28,
         spectral_residual.py:31-81
Differs  in the loss, which is the task's; the source takes the binary cross-entropy of the softmax,
         and for Tiny-ImageNet adds the loss of the unmixed images. With the options of its README
         for CIFAR, the source pairs at random, because it does not know the name greedy_c
         (`pairing="random"`)
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad
from torchvision.transforms.v2.functional import gaussian_blur

from mixbench.contract import Method, Sources, Step
from mixbench.declare import Fraction
from mixbench.kernels import permutation

KERNEL, SIGMA = [7, 7], [3.0, 3.0]  # of the blur, in pixels
LARGEST = 128  # side at which spectral residuals of larger images are computed, in pixels


class GuidedMixup(Method):
    """Pair images whose salient pixels are apart, and show of each what is salient in it.

    Parameters
    ----------
    saliency
        How saliency is measured: ``sr``, spectral residuals of the image, without the model, or
        ``ap``, the norm of the gradient of the loss.
    prob
        Probability of mixing a batch; the source has 0.5 for ``sr`` and 0.8 for ``ap``.
    pairing
        How partners are chosen: ``greedy``, one cycle through the batch that goes on to the image
        whose saliency differs most, or at ``random``.
    """

    version = 1

    def __init__(
        self,
        saliency: Literal["sr", "ap"] = "sr",
        prob: Fraction = 0.5,
        pairing: Literal["greedy", "random"] = "greedy",
    ) -> None:
        super().__init__()
        self.saliency, self.prob, self.pairing = saliency, prob, pairing

    def mix(self, x: Tensor, step: Step) -> tuple[Tensor, Sources]:
        """Return the mixed batch; the weights are the means of the masks."""
        skipped = torch.rand((), generator=step.rng) >= self.prob
        partner = permutation(len(x), step.rng, x.device)
        if skipped:
            return x, Sources.unmixed(x)
        seen = step.saliency() if self.saliency == "ap" else spectral_residual(x.float())
        seen = gaussian_blur(seen.float()[:, None], KERNEL, SIGMA)[:, 0]
        seen = seen / seen.sum((1, 2), keepdim=True).clamp_min(1e-12)
        if self.pairing == "greedy":
            partner = one_cycle(seen)
        tiny = torch.finfo(seen.dtype).tiny
        mask = (seen + tiny) / (seen + seen.index_select(0, partner) + 2 * tiny)
        mixed = x.index_select(0, partner).lerp(x, mask[:, None].to(x.dtype))
        return mixed, Sources.pair(partner, mask.mean((1, 2)))


def spectral_residual(x: Tensor) -> Tensor:
    """Return the saliency of each pixel by the spectral residual of the image, (B, H, W)."""
    weights = x.new_tensor([0.2989, 0.587, 0.114])
    grey = torch.einsum("bchw,c->bhw", x, weights) if x.shape[1] == 3 else x.mean(1)
    size = (x.shape[-2], x.shape[-1])
    grey = grey[:, None]
    if max(size) > LARGEST:
        grey = interpolate(grey, [min(n, LARGEST) for n in size], mode="bilinear", antialias=True)
    spectrum = torch.fft.fft2(grey)
    magnitude = (spectrum.real.square() + spectrum.imag.square() + 1e-10).sqrt()
    logs = magnitude.log()
    smooth = avg_pool2d(pad(logs, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    found: Tensor = torch.fft.ifft2(spectrum * ((logs - smooth).exp() / magnitude)).abs()
    found = gaussian_blur(found, KERNEL, SIGMA)
    if max(size) > LARGEST:
        found = interpolate(found, size, mode="bilinear")
    return found[:, 0]


def one_cycle(seen: Tensor) -> Tensor:
    """Return the partner of each image in a single cycle of large distances, (B,) int64.

    It starts with the pair at the largest distance; every further image is the one that differs
    most from the image before it among those that nobody has as a partner yet.

    Parameters
    ----------
    seen : (B, H, W)
        Saliency of each image.
    """
    size = len(seen)
    flat = seen.flatten(1)
    distance = torch.cdist(flat, flat).cpu().fill_diagonal_(-torch.inf)
    partner = torch.zeros(size, dtype=torch.int64)
    first = at = int(distance.argmax()) // size
    distance[:, first] = -torch.inf  # the last image closes the cycle
    for _ in range(size - 1):
        partner[at] = distance[at].argmax()
        at = int(partner[at])
        distance[:, at] = -torch.inf
    partner[at] = first
    return partner.to(seen.device)
