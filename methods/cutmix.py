"""CutMix: paste a rectangle of a partner; weigh the targets by the area that is left.

Paper    Yun et al., CutMix: Regularization Strategy to Train Strong Classifiers with Localizable
         Features, ICCV 2019, arXiv:1905.04899, §3.1
Source   clovaai/CutMix-PyTorch@2d8eb68, train.py:227-240 and 279-295
Differs  in names only: the source calls rows x and W. Before its commit f0c71b1 it did not correct
         λ for clipping; this file does
"""

import torch
from torch import Tensor

from mixbench.contract import Method, Sources, Step
from mixbench.declare import Fraction, Positive
from mixbench.kernels import Box, beta, clipped_box, paste_box, paste_box_, permutation


class CutMix(Method):
    """Paste the same box of a random partner into every image of the batch.

    Parameters
    ----------
    alpha
        λ ~ Beta(α, α) is the share of the image that the box, before clipping, leaves.
    prob
        Of mixing a batch at all; the source takes 0.5 on CIFAR and 1 on ImageNet.
    """

    version = 1

    def __init__(self, alpha: Positive = 1.0, prob: Fraction = 1.0) -> None:
        super().__init__()
        self.alpha = alpha
        self.prob = prob

    def mix(self, x: Tensor, step: Step) -> tuple[Tensor, Sources]:
        """Return the pasted batch; the weight is the share of pixels, after clipping."""
        box = self.draw_box((x.shape[-2], x.shape[-1]), step.rng)
        partner = permutation(len(x), step.rng, x.device)
        if box is None:
            return x, Sources.alone(x)
        kept = 1 - box.area / x[0, 0].numel()
        return self.paste(x, partner, box, step), Sources.pair(partner, kept)

    @staticmethod
    def paste(x: Tensor, partner: Tensor, box: Box, step: Step) -> Tensor:
        """Paste a box, in place where the step spares the batch."""
        return (paste_box_ if step.may_overwrite(x) else paste_box)(x, partner, box)

    def draw_box(self, size: tuple[int, int], rng: torch.Generator) -> Box | None:
        """Draw what is pasted in images of a height and width; None if this batch is not mixed."""
        height, width = size
        skipped = torch.rand((), generator=rng) >= self.prob
        side = float(1 - beta(self.alpha, rng)) ** 0.5
        row = int(torch.randint(height, (), generator=rng))
        column = int(torch.randint(width, (), generator=rng))
        half = int(height * side) // 2, int(width * side) // 2
        return None if skipped else clipped_box((row, column), half, size)
