"""SnapMix: paste a resized box of a partner; weigh labels by how much the model sees in each box.

Paper    Huang et al., SnapMix: Semantically Proportional Mixing for Augmenting Fine-grained Data,
         AAAI 2021, arXiv:2012.04846, §3
Source   Shaoli-Huang/SnapMix@245bda4, utils/mixmethod.py:12-92, utils/custom_ops.py:3-35
Differs  in pairs of one class, whose loss the source counts twice. The model that shows what it
         sees runs in evaluation mode, as in Westlake-AI/openmixup@dd292a2; in the source it is in
         training mode, and updates its batch norms twice. Without the source's second classifier
         of the middle features
"""

import torch
from torch import Tensor
from torch.nn.functional import interpolate

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
    class_maps,
    mixed_loss,
)
from mixbench.declare import Fraction, Positive
from mixbench.kernels import Box, beta, clipped_box, permutation


class SnapMix(Method):
    """Replace a box by a box of a random partner, of another size and at another place.

    Parameters
    ----------
    alpha
        Parameter α of λ ~ Beta(α, α), the fraction of the image outside a box before the box is
        clipped at the image edges; both boxes have a λ of their own.
    prob
        Probability of mixing a batch; the source has 0.5 for training from random weights.
    """

    version = 1
    exempt = {"identical_images_are_unchanged": "the box is resized and moved to another place"}

    def __init__(self, alpha: Positive = 5.0, prob: Fraction = 1.0) -> None:
        super().__init__()
        self.alpha, self.prob = alpha, prob

    def check(self, task: Task, held_out: Split | None) -> None:  # noqa: ARG002  # the contract
        """Check that every image of the task has one class."""
        check_single_label(task, "snapmix")

    def bind(self, model: Backbone, task: Task) -> None:  # noqa: ARG002  # the contract
        """Check that the model has class activation maps."""
        check_maps(model, type(model).__name__)

    def mix(self, x: Tensor, step: Step) -> tuple[Tensor, Sources]:
        """Return the mixed batch; the weights are the fractions of pixels."""
        skipped = torch.rand((), generator=step.rng) >= self.prob
        to, origin = (self._draw_box((x.shape[-2], x.shape[-1]), step.rng) for _ in range(2))
        partner = permutation(len(x), step.rng, x.device)
        if skipped or not to.area or not origin.area:
            return x, Sources.unmixed(x)
        seen = semantic_map(step)
        patch = _inside(x.index_select(0, partner), origin)
        shape = to.bottom - to.top, to.right - to.left
        mixed = x.clone()
        _inside(mixed, to).copy_(interpolate(patch.float(), shape, mode="bilinear"))
        kept = 1 - _inside(seen, to).sum((1, 2))
        pasted = _inside(seen, origin).sum((1, 2)).index_select(0, partner)
        shown = torch.stack([kept, pasted], 1).clamp_min(0)
        return mixed, Sources.pair(partner, 1 - to.area / x[0, 0].numel(), shown)

    def loss(self, output: Output, sources: Sources, step: Step) -> Tensor:
        """Return the loss; as in the source, the weights of an item do not sum to 1."""
        if not sources.more:
            return super().loss(output, sources, step)
        seen = Sources(sources.index, sources.more[0])
        return mixed_loss(step.loss, output.out, seen, step.targets)

    def _draw_box(self, size: tuple[int, int], rng: torch.Generator) -> Box:
        side = float(1 - beta(self.alpha, rng)) ** 0.5
        centre = [int(torch.randint(n, (), generator=rng)) for n in size]
        half = [int(n * side) // 2 for n in size]
        return clipped_box((centre[0], centre[1]), (half[0], half[1]), size)


def semantic_map(step: Step) -> Tensor:
    """Return the share of the evidence of its class at each pixel of each image, (B, H, W)."""
    features = step.predict().features.float().relu()
    with torch.no_grad():
        maps = class_maps(step.model, features, step.targets[: len(features)])
        size = (step.images.shape[-2], step.images.shape[-1])
        seen = interpolate(maps[:, None], size, mode="bilinear")[:, 0]
        seen = seen - seen.amin((1, 2), keepdim=True)
        total = seen.sum((1, 2), keepdim=True)
        even = torch.full_like(seen, 1 / (size[0] * size[1]))  # a constant map shows nothing
        return torch.where(total > 0, seen / total.clamp_min(1e-8), even)


def _inside(x: Tensor, box: Box) -> Tensor:
    """Return a view of the pixels inside a box."""
    return x[..., box.top : box.bottom, box.left : box.right]
