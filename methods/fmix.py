"""FMix: paste a partner through an irregular binary mask sampled from low-frequency noise.

Paper    Harris et al., FMix: Enhancing Mixed Sample Data Augmentation, arXiv:2002.12047, §4
Source   ecs-vlc/FMix@e5991dc, fmix.py:9-78 and 95-150
Differs  in the label weight, which is the mean of the mask (the source uses the sampled λ, which
         differs by at most one pixel), and in the spectrum, which is two-dimensional as in the
         paper: line 65 of the source uses two rows of frequencies as the real and imaginary parts
         of one row, so that its masks have at most two horizontal frequencies (verified by running
         it)
"""

import torch
from torch import Tensor

from mixbench.contract import Method, Sources, Step
from mixbench.declare import Positive
from mixbench.kernels import beta, permutation


class FMix(Method):
    """Replace an irregular region, the same in the whole batch, with that of a random partner.

    Parameters
    ----------
    alpha
        Parameter α of λ ~ Beta(α, α), the fraction of pixels that each image keeps.
    decay
        Exponent δ of the noise spectrum: the amplitude at frequency f is proportional to 1 / f^δ.
        Larger values give smoother masks.
    """

    version = 1

    def __init__(self, alpha: Positive = 1.0, decay: Positive = 3.0) -> None:
        super().__init__()
        self.alpha = alpha
        self.decay = decay

    def mix(self, x: Tensor, step: Step) -> tuple[Tensor, Sources]:
        """Return the mixed batch; the weight is the mean of the mask."""
        height, width = x.shape[-2:]
        share = float(beta(self.alpha, step.rng))
        kept = round(share * height * width)
        order = self.landscape(height, width, step.rng).flatten().argsort(descending=True)
        mask = torch.zeros(height * width, dtype=torch.bool)
        mask[order[:kept]] = True
        partner = permutation(len(x), step.rng, x.device)
        stays = mask.view(height, width).to(x.device)
        mixed = torch.where(stays, x, x.index_select(0, partner))
        return mixed, Sources.pair(partner, kept / (height * width))

    def landscape(self, height: int, width: int, rng: torch.Generator) -> Tensor:
        """Return low-frequency noise, (H, W); images keep the pixels with the highest values."""
        rows, columns = torch.fft.fftfreq(height), torch.fft.rfftfreq(width)
        frequency = (rows[:, None] ** 2 + columns**2).sqrt()
        scale = frequency.clamp_min(1 / max(height, width)) ** -self.decay
        parts = torch.randn(2, *frequency.shape, generator=rng)
        noise = torch.complex(parts[0], parts[1])
        drawn: Tensor = torch.fft.irfft2(scale * noise, s=(height, width))
        return drawn
