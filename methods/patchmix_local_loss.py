"""PatchMix with a local loss: a grid of two images; the cells' loss is added, not averaged.

Paper    none: a variant of Random PatchMix (Cascante-Bonilla et al., arXiv:2106.09011, §3.1-3.3)
         with the two terms that the abstract of GridMix (Baek, Bang & Shim, Pattern Recognition
         109, 2021) names: a loss of the mixed label, and a loss of each cell's class by a second
         head
Source   none published; IlyaDobrynin/GridMixup, and openmixup's `gridmix` after it, are another
         method: a lattice of holes, without the cells' loss
Differs  from GridMix in ways that are not known, since its article was not read: do not compare a
         row of this method with the article's. The size of the grid, the distribution of its cells
         and the weight of the local loss are parameters
"""

from typing import Literal

from torch import Tensor

from mixbench.contract import Output, Sources, Step, mixed_loss
from mixbench.declare import Count, NonNegative, Positive

from .random_patchmix import RandomPatchMix


class PatchMixLocalLoss(RandomPatchMix):
    """Compose a grid from every image and a partner; add the local loss to the global one.

    Parameters
    ----------
    grid
        Cells along each axis.
    cells, alpha
        ``beta``: a cell is the own image's with probability λ ~ Beta(α, α), drawn once per batch;
        ``bernoulli``: with probability 1/2.
    local_weight
        Of the local loss, the mean over the cells; the global one has weight 1.
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
        """Return the global loss of the mixed label, and the local loss by its weight."""
        whole = mixed_loss(step.loss, output.out, sources, step.targets)
        return whole + self.local_weight * self.mean_patch_loss(output, sources, step)
