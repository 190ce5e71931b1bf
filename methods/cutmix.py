"""CutMix: paste a rectangle from a partner image and mix the targets in proportion to the areas.

Paper    Yun et al., CutMix: Regularization Strategy to Train Strong Classifiers with Localizable
         Features, ICCV 2019, arXiv:1905.04899, §3.1
Source   clovaai/CutMix-PyTorch@2d8eb68, train.py:227-240 and 279-295
Differs  only in names: the source calls rows x and W. This file corrects λ for clipping at the
         image edges, as the source does since its commit f0c71b1
"""

import torch
from torch import Tensor

from mixbench.contract import Method, Sources, Step
from mixbench.declare import Fraction, Positive
from mixbench.kernels import Box, beta, box_masks, clipped_box, paste_box, paste_box_, permutation


class CutMix(Method):
    """Paste a box from a random partner into every image; the box is the same in the whole batch.

    In the recipe's mode ``elem``, every image has a box of its own.

    Parameters
    ----------
    alpha
        Parameter α of λ ~ Beta(α, α), the fraction of the image outside the box before the box is
        clipped at the image edges.
    prob
        Probability of mixing a batch. The source uses 0.5 on CIFAR and 1 on ImageNet.
    """

    version = 1
    per_element = True

    def __init__(self, alpha: Positive = 1.0, prob: Fraction = 1.0) -> None:
        super().__init__()
        self.alpha = alpha
        self.prob = prob

    def mix(self, x: Tensor, step: Step) -> tuple[Tensor, Sources]:
        """Return the mixed batch; the weights are the fractions of pixels after clipping."""
        if step.per_element:
            return self.mix_each(x, step)
        box = self.draw_box((x.shape[-2], x.shape[-1]), step.rng)
        partner = permutation(len(x), step.rng, x.device)
        if box is None:
            return x, Sources.unmixed(x)
        kept = 1 - box.area / x[0, 0].numel()
        return self.paste(x, partner, box, step), Sources.pair(partner, kept)

    def mix_each(self, x: Tensor, step: Step) -> tuple[Tensor, Sources]:
        """Return the batch with a box, and a draw of `prob`, of its own for every item."""
        number, (height, width) = len(x), (x.shape[-2], x.shape[-1])
        skipped = torch.rand(number, generator=step.rng) >= self.prob
        side = (1 - step.beta(self.alpha, number)).sqrt()
        rows = torch.randint(height, (number,), generator=step.rng)
        columns = torch.randint(width, (number,), generator=step.rng)
        half = ((height * side).long() // 2, (width * side).long() // 2)
        boxes = box_masks((rows, columns), half, (height, width)) & ~skipped[:, None, None]
        partner = permutation(number, step.rng, x.device)
        kept = 1 - boxes.float().mean((1, 2))
        mixed = torch.where(boxes.to(x.device)[:, None], x[partner], x)
        return mixed, Sources.pair(partner, kept.to(x.device))

    @staticmethod
    def paste(x: Tensor, partner: Tensor, box: Box, step: Step) -> Tensor:
        """Paste a box, in place if the step allows the batch to be overwritten."""
        return (paste_box_ if step.may_overwrite(x) else paste_box)(x, partner, box)

    def draw_box(self, size: tuple[int, int], rng: torch.Generator) -> Box | None:
        """Draw a box for images of size (height, width); return None to leave the batch unmixed."""
        height, width = size
        skipped = torch.rand((), generator=rng) >= self.prob
        side = float(1 - beta(self.alpha, rng)) ** 0.5
        row = int(torch.randint(height, (), generator=rng))
        column = int(torch.randint(width, (), generator=rng))
        half = int(height * side) // 2, int(width * side) // 2
        return None if skipped else clipped_box((row, column), half, size)
