"""Token-Label Alignment: CutMix of whole patches; labels follow the tokens through the attention.

Paper    Xiao et al., Token-Label Alignment for Vision Transformers, ICCV 2023, arXiv:2210.06455, §3
Source   Euphoria16/TL-Align@4da0621, tla.py:33-80 and 135-178,
         timm/models/vision_transformer.py:197-247 and 365-408
Differs  in the order of summation: the source multiplies the label of every token by the attention
         of each block; this file follows the attention of the class token back to the patches, with
         the same result. Labels are not smoothed, which is a setting of the recipe. The partner is
         random instead of the mirror place in the batch. Westlake-AI/openmixup@37e1372 has only the
         CutMix of patches under this name
"""

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from mixbench.contract import Method, Output, Sources, Step, mixed_loss
from mixbench.declare import Positive
from mixbench.kernels import beta, clipped_box, permutation


class TokenLabelAlignment(Method):
    """Paste a box of whole patches; the label is that which the class token has gathered.

    Parameters
    ----------
    alpha
        Parameter α of λ ~ Beta(α, α), the fraction of the patches outside the box before the box is
        clipped at the image edges.
    """

    version = 1
    needs_attention = True
    attention = "rollout"

    def __init__(self, alpha: Positive = 1.0) -> None:
        super().__init__()
        self.alpha = alpha

    def mix(self, x: Tensor, step: Step) -> tuple[Tensor, Sources]:
        """Return the mixed batch; the weights are the fractions of pixels after clipping."""
        grid = step.model.feature_size
        share = (1 - float(beta(self.alpha, step.rng))) ** 0.5
        centre = tuple(int(torch.randint(n, (), generator=step.rng)) for n in grid)
        partner = permutation(len(x), step.rng, x.device)
        half = tuple(int(n * share) // 2 for n in grid)
        box = clipped_box((centre[0], centre[1]), (half[0], half[1]), grid)
        inside = torch.zeros(grid, device=x.device)
        inside[box.top : box.bottom, box.left : box.right] = 1
        pixels = interpolate(inside[None, None], x.shape[-2:])  # the nearest patch
        mixed = torch.where(pixels > 0, x.index_select(0, partner), x)
        sources = Sources.pair(partner, 1 - pixels.mean(), inside.expand(len(x), -1, -1))
        return mixed, sources

    def loss(self, output: Output, sources: Sources, step: Step) -> Tensor:
        """Return the loss with the label that the class token has gathered."""
        if not sources.more:
            return super().loss(output, sources, step)
        assert output.attention is not None
        gathered = output.attention.detach().float()
        from_box = (gathered * sources.more[0]).sum((1, 2))
        from_class_token = 1 - gathered.sum((1, 2))  # it starts with the label by area
        partners = (from_box + from_class_token * sources.weight[:, 1]).clamp(0, 1)
        weighted = Sources(sources.index, torch.stack([1 - partners, partners], 1))
        return mixed_loss(step.loss, output.out, weighted, step.targets)
