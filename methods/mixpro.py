"""MixPro: fill the cells of a grid from two images; weigh labels by area, then by attention.

Paper    Zhao et al., MixPro: Data Augmentation with MaskMix and Progressive Attention Labeling for
         Vision Transformer, ICLR 2023, arXiv:2304.12043, §3
Source   fistyee/MixPro@53a229e, utils.py:27-58 and main.py:287-314
Differs  in what surrounds it: the source mixes half of the batches by Mixup or CutMix. The label
         with which predictions are compared is not smoothed. The source's settings for DeiT have
         `pal` off, against its README and its paper. Westlake-AI/openmixup@37e1372,
         openmixup/models/augments/mixpro.py, reads the attention of the unmixed image, and averages
         the weights over the batch
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, cosine_similarity

from mixbench.contract import (
    Method,
    Output,
    Sources,
    Split,
    Step,
    Task,
    check_single_label,
    mixed_loss,
)
from mixbench.declare import Count, Positive
from mixbench.kernels import beta, cell_areas, cell_of_pixels, compose_grid, permutation


class MixPro(Method):
    """Fill a share of the cells of each image, at random places, from a random partner.

    Parameters
    ----------
    alpha
        Parameter α of λ ~ Beta(α, α), the share of the cells that an image keeps, at least one.
    grid
        Number of cells along each axis; the source has 4, cells of 56 of 224 pixels.
    pal
        Whether labels are weighted by attention too (progressive attention labeling): the closer
        the prediction is to the label by area, the more the attention to the cells counts.
    detach_similarity
        Whether the weight of the attention is a constant for the gradient, as in openmixup; the
        source propagates gradients through it.
    """

    version = 2
    needs_attention = True

    def __init__(
        self,
        alpha: Positive = 1.0,
        grid: Count = 4,
        *,
        pal: bool = True,
        detach_similarity: bool = False,
    ) -> None:
        super().__init__()
        self.alpha, self.grid = alpha, grid
        self.pal, self.detach_similarity = pal, detach_similarity

    def check(self, task: Task, held_out: Split | None) -> None:  # noqa: ARG002  # the contract
        """Check that every image of the task has one class."""
        check_single_label(task, "mixpro")

    def mix(self, x: Tensor, step: Step) -> tuple[Tensor, Sources]:
        """Return the mixed batch; the weights are the fractions of pixels."""
        size, cells = (x.shape[-2], x.shape[-1]), self.grid**2
        partner = permutation(len(x), step.rng, x.device)
        number = max(math.ceil(cells * float(beta(self.alpha, step.rng))), 1)
        order = torch.rand(len(x), cells, generator=step.rng).argsort(1).argsort(1)
        kept = (order < number).to(x.device)
        own = torch.arange(len(x), device=x.device)[:, None]
        mixed = compose_grid(x, torch.where(kept, own, partner[:, None]), self.grid)
        pixels = kept[:, cell_of_pixels(size, self.grid, x.device)].float()
        areas = (kept * cell_areas(size, self.grid).to(x.device)).sum(1)
        return mixed, Sources.pair(partner, areas, pixels)

    def loss(self, output: Output, sources: Sources, step: Step) -> Tensor:
        """Return the loss with weights between the areas and the shares of the attention."""
        if not (self.pal and sources.more):
            return super().loss(output, sources, step)
        assert output.attention is not None
        attention = output.attention.detach().float()
        places = (attention.shape[-2], attention.shape[-1])
        kept = adaptive_avg_pool2d(sources.more[0], places)
        attended = (attention * kept).sum((1, 2)) / attention.sum((1, 2))
        shown = output.out.float().softmax(1)
        labels = torch.zeros_like(shown)
        labels = labels.scatter_add(1, step.targets[sources.index], sources.weight)
        trust = cosine_similarity(labels, shown)
        trust = trust.detach() if self.detach_similarity else trust
        own = trust * attended + (1 - trust) * sources.weight[:, 0]
        weight = torch.stack([own, 1 - own], 1)
        return mixed_loss(step.loss, output.out, Sources(sources.index, weight), step.targets)
