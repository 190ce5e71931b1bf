"""CutMix with a patch loss: a control that separates the effects of the grid and of the loss.

Paper    none: a control for Cascante-Bonilla et al., arXiv:2106.09011, §5.5, where, in Table 6, the
         grid without the patch loss scores close to the baseline
Source   none published
Differs  from both CutMix and PatchMix: the box can cross cells, so the label of a patch is the
         mixed label of the two images in it
"""

import torch
from torch import Tensor

from mixbench.contract import Output, Sources, Step, mixed_loss
from mixbench.declare import Count, Fraction, Positive
from mixbench.kernels import cell_areas, cell_of_pixels, permutation

from .cutmix import CutMix
from .random_patchmix import RandomPatchMix


class CutMixPatch(RandomPatchMix):
    """Paste a box as CutMix does, and supervise both the image and its patches on a grid.

    Parameters
    ----------
    alpha
        Parameter α of CutMix's λ ~ Beta(α, α), the fraction of the image outside the box before the
        box is clipped at the image edges.
    prob
        Probability of mixing a batch with CutMix.
    grid
        Number of cells along each axis of the grid of supervised patches.
    """

    version = 1

    def __init__(self, alpha: Positive = 1.0, prob: Fraction = 1.0, grid: Count = 4) -> None:
        super().__init__(grid)
        self.cutmix = CutMix(alpha, prob)

    def mix(self, x: Tensor, step: Step) -> tuple[Tensor, Sources]:
        """Return the mixed batch; each cell has two sources, the image and its partner."""
        size = (x.shape[-2], x.shape[-1])
        box = self.cutmix.draw_box(size, step.rng)
        partner = permutation(len(x), step.rng, x.device)
        mixed, pasted = x, torch.zeros(size, device=x.device)
        if box is not None:
            mixed = self.cutmix.paste(x, partner, box, step)
            pasted[box.top : box.bottom, box.left : box.right] = 1
        cells = cell_of_pixels(size, self.grid, x.device).flatten()
        share = pasted.new_zeros(self.grid**2).index_add_(0, cells, pasted.flatten() / len(cells))
        own = torch.arange(len(x), device=x.device)
        index = torch.stack([own, partner], 1).repeat(1, self.grid**2)
        weight = torch.stack([cell_areas(size, self.grid).to(x.device) - share, share], 1)
        sources = Sources(index, weight.clamp_min(0).flatten().expand(len(x), -1))
        return mixed, sources

    def mean_patch_loss(self, output: Output, sources: Sources, step: Step) -> Tensor:
        """Return the mean loss over the cells, each with the mixed label of its two sources."""
        pairs = sources.weight.unflatten(1, (-1, 2))
        even = (pairs / pairs.sum(-1, keepdim=True) / self.grid**2).flatten(1)
        patches = self.patches(output.features).repeat_interleave(2, 1)
        parts = Sources(sources.index, even)
        return mixed_loss(step.loss, patches, parts, step.targets, per_source=True)
