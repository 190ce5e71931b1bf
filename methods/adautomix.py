"""AdAutoMix: a small network learns masks that make several images hard to recognise.

Paper    Qin et al., Adversarial AutoMixup, ICLR 2024, arXiv:2312.11954, §3
Source   JinXins/Adversarial-AutoMixup@9d6fd12, openmixup/models/classifiers/AdAutoMix.py:218-561,
         openmixup/models/heads/Ada_mix_pine.py:60-273
Differs  as AutoMix does. A step is adversarial at random, with probability 1/2, where the source
         takes every second step. The average is in evaluation mode, so one pass through it gives
         the features and the outputs of all unmixed images. As in the source, an adversarial step
         lowers the similarity of a mixed image to its sources, although the paper wants it to keep
         their meaning, which `similarity="raise"` does
"""

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixbench.contract import Backbone, Method, Output, Sources, Step, Task, mixed_loss
from mixbench.declare import Fraction, Positive
from mixbench.kernels import beta, permutation

from .automix import num_channels, seen_by, small_weights


class AdAutoMix(Method):
    """Mix by masks, one for each image, that a block of attention computes from their features.

    In half of the steps, the block learns to let an average of the model fail on what it mixes, and
    in the others, to let it succeed. The model is trained on mixed and on unmixed images.

    Parameters
    ----------
    alpha
        Parameter α of Beta(α, α), from which the weights of the images are drawn. Three weights are
        divided by their sum.
    num_images
        Number of images that are mixed into one: 3 in the source for CIFAR and Tiny-ImageNet, 2
        for ImageNet.
    lam_input
        Whether the block gets the weights: ``none``, as in the source for convolutional networks on
        CIFAR and Tiny-ImageNet, or ``concat``, as a further channel of the features, as elsewhere.
    adversarial_weight
        Weight β of the loss that an adversarial step raises; the similarity has 1 - β. In the
        source, 0.3 for CIFAR, 0.4 for Tiny-ImageNet and 0.1 for ImageNet.
    similarity
        Whether an adversarial step is to ``lower`` or ``raise`` the cosine similarity of the
        average's outputs for a mixed image and for the images that it is made of.
    mixup_ratio
        With three images, weight of the loss of plain Mixup against that of unmixed
        images.
    lam_margin
        If the weight of the first image is closer than this to 0 or 1, the images are mixed by
        Mixup.
    """

    version = 1
    ema_decay = 0.999
    exempt: ClassVar = {"weights_match_pixels": "labels are weighted by λ, and masks are not"}

    def __init__(  # noqa: PLR0913  # the parameters of the source
        self,
        alpha: Positive = 1.0,
        num_images: Literal[2, 3] = 3,
        lam_input: Literal["none", "concat"] = "none",
        adversarial_weight: Fraction = 0.3,
        similarity: Literal["lower", "raise"] = "lower",
        mixup_ratio: Fraction = 0.5,
        lam_margin: Fraction = 0.03,
    ) -> None:
        super().__init__()
        self.alpha, self.num_images, self.lam_input = alpha, num_images, lam_input
        self.adversarial_weight, self.similarity = adversarial_weight, similarity
        self.mixup_ratio, self.lam_margin = mixup_ratio, lam_margin

    def bind(self, model: Backbone, task: Task) -> None:
        """Create the block that computes masks."""
        channels = num_channels(model, task)
        given, within = channels + (self.lam_input == "concat"), max(channels // 2, 1)
        self.query, self.key = nn.Conv2d(given, within, 1), nn.Conv2d(given, within, 1)
        self.value = nn.Conv2d(given, 1, 1)
        self.apply(small_weights)

    def masks(self, features: Tensor, sources: Sources, size: torch.Size) -> Tensor:
        """Return the share of each source in each pixel, (B, K, H, W)."""
        seen = features[sources.index]
        if self.lam_input == "concat":
            shares = sources.weight[:, :, None, None, None].expand(-1, -1, 1, *seen.shape[3:])
            seen = torch.cat([seen, shares], 2)
        queries, keys, values = (
            layer(seen.flatten(0, 1)).flatten(2).unflatten(0, sources.index.shape)
            for layer in (self.query, self.key, self.value)
        )
        queries, keys = queries.relu(), keys.relu()
        others = keys.sum(1, keepdim=True) - keys
        products = (queries.mT @ others).float() / keys.shape[2] ** 0.5
        found = (products.softmax(3) @ values.mT.float()).squeeze(3)
        maps = found.unflatten(2, features.shape[2:])
        return F.interpolate(maps, size, mode="bilinear").softmax(1)

    def mix(self, x: Tensor, step: Step) -> tuple[Tensor, Sources]:
        """Return the batch mixed for the model; the loss gets the masks that are trained."""
        assert step.ema is not None
        adversarial = torch.rand((), generator=step.rng) < 0.5
        lams = beta(self.alpha, step.rng, self.num_images).float()
        # For the model, and for what trains the masks: with two images, each has a λ of its own.
        weights = [torch.stack([lam, 1 - lam]) for lam in lams.flip(0)]
        if self.num_images > 2:
            weights = [lams / lams.sum()] * 2
        shown, taught = (self._drawn(x, weight, step) for weight in weights)
        # For the features, what trains the masks, the unmixed images, and those of plain Mixup.
        step.num_saliency_images += (3 + (self.num_images > 2)) * len(x)
        seen = seen_by(step.ema, x)
        first = float(weights[0][0])
        if min(first, 1 - first) <= self.lam_margin:
            mask = shown.weight[:, :, None, None]
        else:
            with torch.no_grad():
                mask = self.masks(seen.features, shown, x.shape[-2:])
        trained = self.masks(seen.features, taught, x.shape[-2:])
        outputs = (seen.out[taught.index],) if adversarial else ()
        return blend(x, shown.index, mask), shown._replace(
            more=(*taught.tensors, trained, *outputs)
        )

    def _drawn(self, x: Tensor, weight: Tensor, step: Step) -> Sources:
        """Draw the images of each mixed one; of two, the first is the item itself."""
        columns = [permutation(len(x), step.rng, x.device) for _ in weight]
        if self.num_images == 2:
            columns[0] = torch.arange(len(x), device=x.device)
        return Sources(torch.stack(columns, 1), weight.to(x.device).expand(len(x), -1))

    def loss(self, output: Output, sources: Sources, step: Step) -> Tensor:
        """Return the losses of mixed and unmixed images, and the loss of the masks."""
        assert step.ema is not None
        loss = mixed_loss(step.loss, output.out, sources, step.targets)
        if not sources.more:
            return loss
        own, plain = sources.index[:, 0], sources._replace(more=())
        unmixed = step.loss(step.model(step.images[own]).out, step.targets[own]).mean()
        if self.num_images > 2:
            images = blend(step.images, plain.index, plain.weight[:, :, None, None])
            of_mixup = mixed_loss(step.loss, step.model(images).out, plain, step.targets)
            unmixed = unmixed.lerp(of_mixup, self.mixup_ratio)
        index, weight, mask, *outputs = sources.more
        # What the average recognises trains the masks only.
        out = step.ema.requires_grad_(requires_grad=False)(blend(step.images, index, mask)).out
        of_masks = mixed_loss(step.loss, out, Sources(index, weight), step.targets)
        if outputs:
            similar = F.cosine_similarity(out[:, None], outputs[0], dim=2).mul(weight).sum(1).mean()
            if self.similarity == "raise":
                similar = -similar
            share = self.adversarial_weight
            of_masks = (1 - share) * similar - share * of_masks
        return loss + unmixed + of_masks


def blend(images: Tensor, index: Tensor, mask: Tensor) -> Tensor:
    """Return the sum of the images at each index, weighted by their masks, (B, C, H, W)."""
    blended = torch.zeros_like(images[: len(index)])
    for column, share in zip(index.unbind(1), mask.to(images.dtype).unbind(1), strict=True):
        blended = blended + images.index_select(0, column) * share[:, None]
    return blended
