"""Weigh the sources of a grid of patches by the model's attention instead of their areas.

Paper    after Chen et al., TransMix: Attend to Mix for Vision Transformers, CVPR 2022
Source   -
Differs  a sketch for the tests of the contract: a random grid instead of a box
"""

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from mixbench.contract import Method, Output, Sources, Step, mixed_loss
from mixbench.declare import Count
from mixbench.kernels import cell_areas, compose_grid, permutation


class AttentionWeights(Method):
    """Compose patches at random; the loss weighs them by the attention that they get.

    Parameters
    ----------
    grid
        Number of cells along each axis of the grid.
    """

    version = 1
    needs_attention = True

    def __init__(self, grid: Count = 4) -> None:
        super().__init__()
        self.grid = grid

    def mix(self, x: Tensor, step: Step) -> tuple[Tensor, Sources]:
        """Return the composed batch; the weights are the areas."""
        own = (torch.rand(self.grid**2, generator=step.rng) < 0.5).to(x.device)
        partner = permutation(len(x), step.rng, x.device)
        items = torch.arange(len(x), device=x.device)
        index = torch.where(own, items[:, None], partner[:, None])
        weight = cell_areas((x.shape[-2], x.shape[-1]), self.grid).to(x.device)
        return compose_grid(x, index, self.grid), Sources(index, weight.expand(len(x), -1))

    def loss(self, output: Output, sources: Sources, step: Step) -> Tensor:
        """Return the loss, with the attention to each cell as the weight of its source."""
        assert output.attention is not None
        seen = adaptive_avg_pool2d(output.attention[:, None], self.grid).flatten(1)
        weight = (seen / seen.sum(1, keepdim=True)).detach()
        return mixed_loss(step.loss, output.out, Sources(sources.index, weight), step.targets)
