"""GridMix, after its abstract: a grid of two images, and a second head for each cell's class.

Paper    Baek, Bang & Shim, GridMix: Strong Regularization Through Local Context Mapping, Pattern
         Recognition 109, 2021, doi:10.1016/j.patcog.2020.107594
Source   none published; IlyaDobrynin/GridMixup, and openmixup's `gridmix` after it, are another
         method: a lattice of holes, without the cells' loss
Differs  not known for certain: the article was not at hand, but its abstract and the authors' page,
         which say that cells are mixed, that the global and the local head share all layers but the
         last, and that each cell's class is learnt by cross-entropy. The size of the grid, the law
         of its cells and the weight of the local loss are therefore parameters: do not read a row
         of this method as the article's
"""

from typing import Literal

from torch import Tensor

from mixbench.contract import Output, Sources, Step, mixed_loss
from mixbench.declare import Count, NonNegative, Positive

from .random_patchmix import RandomPatchMix


class GridMix(RandomPatchMix):
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
