"""TokenMix: paste blocks of patches; labels are weighted by what a teacher sees in them.

Paper    Liu et al., TokenMix: Rethinking Image Mixing for Data Augmentation in Vision Transformers,
         ECCV 2022, arXiv:2207.08409, §3
Source   Sense-X/TokenMix@0e17d5d, tokenmix.py:24-65, 166-229 and 305-358, engine.py:34-42
Differs  in the teacher: the source reads maps that an NFNet-F6 made once for ImageNet; this file
         asks a model that was trained without mixing on the same images, whose training counts as
         cost. In the loss: the source takes the binary cross-entropy, which is a setting of the
         recipe here. In what surrounds it: the source mixes half of the batches by Mixup, smooths
         labels, and pairs each image with its mirror place in the batch.
         Westlake-AI/openmixup@37e1372, openmixup/models/augments/tokenmix.py:136-147, weighs by the
         attention of the model itself, and exchanges the weights of the two labels
"""

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate

from mixbench.contract import (
    Backbone,
    Method,
    Output,
    Sources,
    Split,
    Step,
    Task,
    check_maps,
    check_single_label,
    class_weights,
    mixed_loss,
)
from mixbench.declare import Need, Positive, PositiveFraction
from mixbench.kernels import beta, permutation

TRIES = 10  # for each block
ASPECT = 0.3  # smallest ratio of the sides of a block; the largest is its inverse


class TokenMix(Method):
    """Paste blocks of patches; the weight of each label is what the teacher sees of its class.

    Parameters
    ----------
    lam
        How the share of the patches that an image keeps is chosen: ``constant``, one half, as in
        the source, or ``beta``, a λ ~ Beta(α, α), as in openmixup.
    alpha
        Parameter α of that distribution; without effect if `lam` is ``constant``.
    more
        Share of the patches that is pasted in addition; the source has 14 of 196.
    blocks
        Whether blocks of patches are pasted; if false, single patches.
    """

    version = 1
    needs: ClassVar = {"teacher": Need(method="none")}
    exempt: ClassVar = {"loss_fits_the_sources": "labels are weighted by what a teacher sees"}

    def __init__(
        self,
        lam: Literal["constant", "beta"] = "constant",
        alpha: Positive = 1.0,
        more: PositiveFraction = 0.0714,
        *,
        blocks: bool = True,
    ) -> None:
        super().__init__()
        self.lam, self.alpha, self.more, self.blocks = lam, alpha, more, blocks

    def check(self, task: Task, held_out: Split | None) -> None:  # noqa: ARG002  # the contract
        """Check that every image of the task has one class."""
        check_single_label(task, "tokenmix")

    def bind(self, model: Backbone, task: Task) -> None:  # noqa: ARG002  # the contract
        """Check that the teacher, a model of the same kind, has class activation maps."""
        check_maps(model, type(model).__name__)

    def mix(self, x: Tensor, step: Step) -> tuple[Tensor, Sources]:
        """Return the mixed batch; the weights are the fractions of pixels."""
        grid = step.model.feature_size
        kept = 0.5 if self.lam == "constant" else float(beta(self.alpha, step.rng))
        partner = permutation(len(x), step.rng, x.device)
        number = math.prod(grid)
        budget = min(int((1 - kept) * number) + round(self.more * number), number)
        pasted = torch.zeros(grid)
        if self.blocks:
            _add_blocks(pasted, budget, step.rng)
        else:
            pasted.view(-1)[torch.randperm(number, generator=step.rng)[:budget]] = 1
        pasted = pasted.to(x.device)
        seen = _seen_by(step, grid)
        evidence = [(seen * (1 - pasted)).sum((1, 2)), (seen[partner] * pasted).sum((1, 2))]
        pixels = interpolate(pasted[None, None], x.shape[-2:])  # the nearest patch
        mixed = torch.where(pixels > 0, x.index_select(0, partner), x)
        return mixed, Sources.pair(partner, 1 - pixels.mean(), torch.stack(evidence, 1))

    def loss(self, output: Output, sources: Sources, step: Step) -> Tensor:
        """Return the loss; as in the source, the weights of an item do not sum to 1."""
        if not sources.more:
            return super().loss(output, sources, step)
        evidence = sources.more[0]
        return mixed_loss(step.loss, output.out, Sources(sources.index, evidence), step.targets)


def _seen_by(step: Step, grid: tuple[int, int]) -> Tensor:
    """Return the share of the teacher's evidence of the class at each place, (B, h, w)."""
    teacher = step.teachers["teacher"]
    features = step.ask(teacher).features.float()
    with torch.no_grad():
        weight = class_weights(teacher).float()
        bias = getattr(teacher.get_submodule("classifier"), "bias", None)
        places = conv2d(features, weight[..., None, None], bias).softmax(1)
        seen = places[torch.arange(len(places)), step.targets]
        seen = interpolate(seen[:, None], grid, mode="bilinear")[:, 0]
        return seen / (seen.sum((1, 2), keepdim=True) + 1e-8)


def _add_blocks(pasted: Tensor, budget: int, rng: torch.Generator) -> None:
    """Set blocks of a mask, (h, w), to 1 until it has so many or no block was found that fits."""
    height, width = pasted.shape
    while (rest := budget - int(pasted.sum())) > 0:
        for _ in range(TRIES):
            drawn = torch.rand(4, generator=rng, dtype=torch.float64).tolist()
            area = 1 + drawn[0] * (rest - 1)
            aspect = math.exp((2 * drawn[1] - 1) * math.log(1 / ASPECT))
            high, wide = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
            if not (0 < high < height and 0 < wide < width):
                continue
            top, left = int(drawn[2] * (height - high + 1)), int(drawn[3] * (width - wide + 1))
            block = pasted[top : top + high, left : left + wide]
            if 0 < int((1 - block).sum()) <= rest:
                block.fill_(1)
                break
        else:
            return
