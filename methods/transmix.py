"""TransMix: CutMix whose labels are weighted by the attention that the model pays to the box.

Paper    Chen et al., TransMix: Attend to Mix for Vision Transformers, CVPR 2022, arXiv:2111.09833,
         §3.2
Source   Beckschen/TransMix@7e313ca, transmix.py:61-86; the attention is that of
         timm/models/vision_transformer.py:215-228 there
Differs  in what surrounds it: the source mixes half of the batches by Mixup, smooths labels, and
         pairs each image with its mirror place in the batch
"""

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from mixbench.contract import Output, Sources, Step, mixed_loss
from mixbench.declare import Fraction, Positive
from mixbench.kernels import permutation

from .cutmix import CutMix


class TransMix(CutMix):
    """Paste a box from a random partner; the attention to the box decides the partner's weight.

    Parameters
    ----------
    alpha
        Parameter α of λ ~ Beta(α, α), the fraction of the image outside the box before the box is
        clipped at the image edges.
    prob
        Probability of mixing a batch.
    share
        Share of the attention in the weight of the partner; the rest is that of the box's area.
    """

    version = 1
    needs_attention = True

    def __init__(self, alpha: Positive = 1.0, prob: Fraction = 1.0, share: Fraction = 0.5) -> None:
        super().__init__(alpha, prob)
        self.share = share

    def mix(self, x: Tensor, step: Step) -> tuple[Tensor, Sources]:
        """Return the mixed batch; the weights are the fractions of pixels after clipping."""
        box = self.draw_box((x.shape[-2], x.shape[-1]), step.rng)
        partner = permutation(len(x), step.rng, x.device)
        if box is None:
            return x, Sources.unmixed(x)
        inside = torch.zeros(x.shape[-2:], device=x.device)
        inside[box.top : box.bottom, box.left : box.right] = 1
        kept = 1 - box.area / x[0, 0].numel()
        sources = Sources.pair(partner, kept, inside.expand(len(x), -1, -1))
        return self.paste(x, partner, box, step), sources

    def loss(self, output: Output, sources: Sources, step: Step) -> Tensor:
        """Return the loss with weights between the areas and the shares of the attention."""
        if sources.index.shape[1] == 1:
            return super().loss(output, sources, step)
        assert output.attention is not None
        seen = output.attention.detach()
        inside = interpolate(sources.more[0][:, None], seen.shape[-2:])[:, 0]
        attended = (seen * inside).sum((1, 2)) / seen.sum((1, 2))
        partners = (1 - self.share) * sources.weight[:, 1] + self.share * attended
        weighted = Sources(sources.index, torch.stack([1 - partners, partners], 1))
        return mixed_loss(step.loss, output.out, weighted, step.targets)
