"""FMix: paste a partner through a mask of few, large and ragged pieces, drawn by its spectrum.

Paper    Harris et al., FMix: Enhancing Mixed Sample Data Augmentation, arXiv:2002.12047, §4
Source   ecs-vlc/FMix@e5991dc, fmix.py:9-78 and 95-150
Differs  in the label, whose weight is the mask's mean (the source's is the drawn λ, at most one
         pixel away), and in the spectrum, which is two-dimensional as the paper has it: line 65 of
         the source takes two rows of frequencies for the two parts of one, so that its masks know
         no more than two frequencies across (seen by running it)
"""

import torch
from torch import Tensor

from mixbench.contract import Method, Sources, Step
from mixbench.declare import Positive
from mixbench.kernels import beta, permutation


class FMix(Method):
    """Fill the same ragged part of every image from a random partner.

    Parameters
    ----------
    alpha
        λ ~ Beta(α, α) is the share that stays.
    decay
        δ: amplitudes fall with the frequency f as 1 / f^δ; the larger, the smoother.
    """

    version = 1

    def __init__(self, alpha: Positive = 1.0, decay: Positive = 3.0) -> None:
        super().__init__()
        self.alpha = alpha
        self.decay = decay

    def mix(self, x: Tensor, step: Step) -> tuple[Tensor, Sources]:
        """Return the pasted batch; the weight is the mask's mean."""
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
        """Return noise of low frequencies, (H, W), whose highest pixels stay."""
        rows, columns = torch.fft.fftfreq(height), torch.fft.rfftfreq(width)
        frequency = (rows[:, None] ** 2 + columns**2).sqrt()
        scale = frequency.clamp_min(1 / max(height, width)) ** -self.decay
        parts = torch.randn(2, *frequency.shape, generator=rng)
        noise = torch.complex(parts[0], parts[1])
        drawn: Tensor = torch.fft.irfft2(scale * noise, s=(height, width))
        return drawn
