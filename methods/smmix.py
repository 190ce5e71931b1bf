"""SMMix: paste the most attended square of a partner over the least attended of an image.

Paper    Chen et al., SMMix: Self-Motivated Image Mixing for Vision Transformers, ICCV 2023,
         arXiv:2212.12977, §3
Source   ChenMnZ/SMMix@14b1edc, smmix.py:66-140, deit.py:81-91 and 279-301, engine.py:31-66
Differs  in what surrounds it: the source mixes half of the batches by Mixup, and smooths labels.
         Partners are random instead of the mirror place in the batch; squares are rectangles on
         images that are not square. The classifier of regions gets the features before the last
         normalisation. Westlake-AI/openmixup@37e1372, openmixup/models/augments/smmix.py, reads
         the attention of the class token, and has neither of the two further losses
"""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, kl_div

from mixbench.contract import (
    Backbone,
    Method,
    Output,
    Sources,
    Split,
    Step,
    Task,
    check_single_label,
    mixed_loss,
)
from mixbench.declare import Fraction, NonNegative
from mixbench.errors import BadParameter
from mixbench.kernels import permutation


class SMMix(Method):
    """Move the partner's square that the model attends to most to where it attends least.

    Parameters
    ----------
    smallest, largest
        Range of the side of the square, as a fraction of the side of the image.
    fine_grained
        Weight of the loss that compares the features of each region with the label of its image.
    consistency
        Weight of the divergence between the prediction and the mixed predictions for the unmixed
        images.
    """

    version = 1
    needs_attention = True
    attention = "patches"
    exempt = {
        "identical_images_are_unchanged": "the square is moved to another place",
        "loss_fits_the_sources": "the consistency asks for what the model predicts, not for labels",
    }

    def __init__(
        self,
        smallest: Fraction = 0.25,
        largest: Fraction = 0.75,
        fine_grained: NonNegative = 1.0,
        consistency: NonNegative = 1.0,
    ) -> None:
        super().__init__()
        if smallest > largest:
            raise BadParameter(f"smallest must be at most largest, {largest} (got {smallest}).")
        self.smallest, self.largest = smallest, largest
        self.fine_grained, self.consistency = fine_grained, consistency
        self.head: torch.nn.Module = torch.nn.Identity()

    def check(self, task: Task, held_out: Split | None) -> None:  # noqa: ARG002  # the contract
        """Check that every image of the task has one class."""
        check_single_label(task, "smmix")

    def bind(self, model: Backbone, task: Task) -> None:
        """Create the classifier of regions."""
        if self.fine_grained:
            self.head = task.new_classifier(model.feature_dim)

    def mix(self, x: Tensor, step: Step) -> tuple[Tensor, Sources]:
        """Return the mixed batch; the weights are the fractions of pixels."""
        seen = step.predict()
        assert seen.attention is not None
        logits, attention = seen.out.float(), seen.attention.float()
        grid = (attention.shape[-2], attention.shape[-1])
        # Patches that do not fill the image leave a rest, which stays as it is.
        patch = x.shape[-2] // grid[0], x.shape[-1] // grid[1]
        low, high = (max(int(min(grid) * part), 1) for part in (self.smallest, self.largest))
        side = int(torch.randint(low, high + 1, (), generator=step.rng))
        box = tuple(min(max(round(side * n / min(grid)), 1), n) for n in grid)
        partner = permutation(len(x), step.rng, x.device)
        scores = avg_pool2d(attention[:, None], box, stride=1)
        width = scores.shape[-1]
        least = scores.flatten(1).argmin(1)
        most = scores.flatten(1).argmax(1).index_select(0, partner)
        to, origin = ((place // width, place % width) for place in (least, most))
        patches = _box_at(to, (box[0], box[1]), grid, (1, 1), grid)
        size = (x.shape[-2], x.shape[-1])
        pasted = _box_at(to, (box[0], box[1]), grid, patch, size)
        down = (origin[0] - to[0]) * patch[0]
        right = (origin[1] - to[1]) * patch[1]
        rows = (torch.arange(size[0], device=x.device) + down[:, None]).clamp(0, size[0] - 1)
        columns = (torch.arange(size[1], device=x.device) + right[:, None]).clamp(0, size[1] - 1)
        moved = x[partner[:, None, None], :, rows[:, :, None], columns[:, None]].movedim(3, 1)
        mixed = torch.where(pasted[:, None] > 0, moved, x)
        kept = 1 - pasted.mean((1, 2))
        both = logits * kept[:, None] + logits.index_select(0, partner) * (1 - kept[:, None])
        return mixed, Sources.pair(partner, kept, patches, both.softmax(1))

    def loss(self, output: Output, sources: Sources, step: Step) -> Tensor:
        """Return the loss of the mixed label, of the two regions, and of the consistency."""
        loss = mixed_loss(step.loss, output.out, sources, step.targets)
        if not sources.more:
            return loss
        pasted, expected = sources.more
        if self.fine_grained:
            regions = torch.stack([1 - pasted, pasted], 1).to(output.features.dtype)
            for region, index in zip(regions.unbind(1), sources.index.unbind(1), strict=True):
                shown = region[:, None]
                mean = (output.features * shown).sum((2, 3)) / shown.sum((2, 3)).clamp_min(1)
                own = step.loss(self.head(mean), step.targets[index]).mean()
                loss = loss + self.fine_grained / 2 * own
        if self.consistency:
            given = output.out.float().log_softmax(1)
            loss = loss + self.consistency * kl_div(given, expected, reduction="batchmean")
        return loss


def _box_at(
    corner: tuple[Tensor, Tensor],
    box: tuple[int, int],
    grid: tuple[int, int],
    patch: tuple[int, int],
    size: tuple[int, int],
) -> Tensor:
    """Return a mask of the box at each item's own corner, (B, height, width) of 0 and 1.

    Parameters
    ----------
    corner : (B,) int64 each
        First row and first column of the boxes, in patches.
    box
        Height and width of all boxes, in patches.
    grid
        Number of patches along each axis.
    patch : pixels
        Height and width of a patch.
    size : pixels
        Height and width of the mask.
    """
    inside = []
    for first, length, number, side, end in zip(corner, box, grid, patch, size, strict=True):
        places = torch.arange(end, device=first.device) // side
        within = (places >= first[:, None]) & (places < first[:, None] + length)
        inside.append(within & (places < number))
    return (inside[0][:, :, None] & inside[1][:, None]).float()
