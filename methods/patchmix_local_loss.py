"""PatchMix with a local loss: a grid of two images; the patch loss is added, not averaged.

Paper    none: a variant of Random PatchMix (Cascante-Bonilla et al., arXiv:2106.09011, §3.1-3.3)
         with the two loss terms that the abstract of GridMix (Baek, Bang & Shim, Pattern
         Recognition 109, 2021) names: one for the mixed label of the image, and one for the class
         of each cell, predicted by a second head
Source   none published; IlyaDobrynin/GridMixup and openmixup's `gridmix`, which follows it, are a
         different method: a lattice of holes, without a loss of the cells
Differs  from GridMix in unknown ways, because its article was not available: do not compare the
         results of this method with those of the article. The size of the grid, the distribution of
         its cells and the weight of the local loss are parameters
"""

from typing import Literal

from torch import Tensor

from mixbench.contract import Output, Sources, Step, mixed_loss
from mixbench.declare import Count, NonNegative, Positive

from .random_patchmix import RandomPatchMix


class PatchMixLocalLoss(RandomPatchMix):
    """Compose a grid from every image and a partner, and add a local loss to the global loss.

    Parameters
    ----------
    grid
        Number of cells along each axis of the grid.
    cells
        Distribution of the cells. ``beta``: each cell keeps the original image with probability
        λ ~ Beta(α, α), sampled once per batch. ``bernoulli``: with probability 1/2.
    alpha
        Parameter α of λ ~ Beta(α, α). Only used if `cells` is ``beta``.
    local_weight
        Weight of the local loss, which is the mean loss over the cells. The global loss has
        weight 1.
    """

    version = 1

    def __init__(
        self,
        grid: Count = 4,
        cells: Literal["bernoulli", "beta"] = "beta",
        alpha: Positive = 1.0,
        local_weight: NonNegative = 1.0,
    ) -> None:
        super().__init__(grid, cells, alpha)
        self.local_weight = local_weight

    def loss(self, output: Output, sources: Sources, step: Step) -> Tensor:
        """Return the global loss of the mixed label plus the weighted local loss."""
        whole = mixed_loss(step.loss, output.out, sources, step.targets)
        return whole + self.local_weight * self.mean_patch_loss(output, sources, step)
