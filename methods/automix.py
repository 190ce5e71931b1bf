"""AutoMix: a small network, trained beside the model, learns the masks that mix two images.

Paper    Liu et al., AutoMix: Unveiling the Power of Mixup for Stronger Classifiers, ECCV 2022,
         arXiv:2103.13027, §3
Source   Westlake-AI/openmixup@37e1372, openmixup/models/classifiers/automix.py:182-571,
         openmixup/models/heads/pmix_block.py:121-385
Differs  in the classifier: the source has one for mixed and one for unmixed images, and tests the
         average of the weights; here there is one, and the model itself is tested. In the average,
         whose decay the source raises from 0.999 to 0.999999 in training, and whose batch norms
         run in training mode there. Masks come from the last block but one; networks whose blocks
         return tokens are refused. The optimizer of the masks is that of the model. Without
         `mask_adjust`, which the source leaves at 0
"""

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixbench.contract import Backbone, Method, Output, Sources, Step, Task, mixed_loss
from mixbench.declare import Fraction, NonNegative, Positive
from mixbench.errors import UsageError
from mixbench.kernels import beta, permutation


class AutoMix(Method):
    """Mix by the mask that a block of attention between the features of two images computes.

    The block is trained so that an average of the model recognises what it mixes; the model is
    trained on mixed and on unmixed images.

    Parameters
    ----------
    alpha
        Parameter α of λ ~ Beta(α, α). One λ is drawn for the model, and one for the masks.
    lam_input
        Whether the block gets λ: ``none``, as the source on CIFAR, or ``concat``, as a further
        channel of the features, as the source on ImageNet.
    mask_weight
        Weight of the loss that keeps the mean of the masks near λ.
    mask_margin
        Difference between the two that costs nothing.
    lam_margin
        A λ that is closer to 0 or 1 mixes by Mixup.
    """

    version = 1
    ema_decay = 0.999
    upsampling: ClassVar[Literal["nearest", "bilinear"]] = "nearest"
    exempt: ClassVar = {
        "weights_match_pixels": "labels are weighted by λ, and a loss keeps the masks near it"
    }

    def __init__(
        self,
        alpha: Positive = 2.0,
        lam_input: Literal["none", "concat"] = "none",
        mask_weight: NonNegative = 0.1,
        mask_margin: Fraction = 0.1,
        lam_margin: Fraction = 0.08,
    ) -> None:
        super().__init__()
        self.alpha, self.lam_input = alpha, lam_input
        self.mask_weight, self.mask_margin, self.lam_margin = mask_weight, mask_margin, lam_margin

    def bind(self, model: Backbone, task: Task) -> None:
        """Create the block that computes masks."""
        self.make_block(num_channels(model, task))

    def make_block(self, channels: int) -> None:
        """Create the layers of the block, for features with so many channels."""
        given = channels + (self.lam_input == "concat")
        self.value: nn.Module = nn.Conv2d(given, 1, 1)
        self.query = nn.Conv2d(given, max(channels // 2, 1), 1)
        self.apply(small_weights)

    def scores(self, own: Tensor, other: Tensor, lam: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, (B, D, h, w), of two feature maps."""
        if self.lam_input == "concat":
            own, other = (
                torch.cat([x, x.new_full((len(x), 1, *x.shape[2:]), share)], 1)
                for x, share in ((own, lam), (other, 1 - lam))
            )
        return self.query(own), self.query(other), self.value(other)

    def mask(self, features: Tensor, partner: Tensor, lam: float, size: torch.Size) -> Tensor:
        """Return the share of the partner in each pixel, (B, 1, H, W)."""
        query, key, value = self.scores(features, features.index_select(0, partner), lam)
        product = query.flatten(2).mT @ key.flatten(2)
        attention = (product.float() / query.shape[1] ** 0.5).softmax(2)
        seen = (attention @ value.flatten(2).mT.float()).mT.unflatten(2, value.shape[2:])
        return F.interpolate(seen, size, mode=self.upsampling).sigmoid()

    def mix(self, x: Tensor, step: Step) -> tuple[Tensor, Sources]:
        """Return the batch mixed for the model; the loss gets the masks that are trained."""
        assert step.ema is not None
        lams = beta(self.alpha, step.rng, 2).tolist()
        partners = [permutation(len(x), step.rng, x.device) for _ in lams]
        # For the features, for what trains the masks, and for the unmixed images of the loss.
        step.num_saliency_images += 3 * len(x)
        with torch.no_grad():
            features = seen_by(step.ema, x).features
            mask = self.mask(features, partners[1], lams[1], x.shape[-2:])
        lam = lams[1]
        if min(lam, 1 - lam) <= self.lam_margin:
            mask = torch.full_like(mask, 1 - lam)
        mixed = x.lerp(x.index_select(0, partners[1]), mask.to(x.dtype))
        trained = self.mask(features, partners[0], lams[0], x.shape[-2:])
        its_lam = x.new_full((len(x),), lams[0], dtype=torch.float32)
        return mixed, Sources.pair(partners[1], lam, trained, partners[0], its_lam)

    def loss(self, output: Output, sources: Sources, step: Step) -> Tensor:
        """Return the losses of mixed and unmixed images, and the loss of the masks."""
        assert step.ema is not None
        loss = mixed_loss(step.loss, output.out, sources, step.targets)
        if not sources.more:
            return loss
        mask, partner, lam = sources.more
        own = sources.index[:, 0]
        images = step.images[own]
        unmixed = step.loss(step.model(images).out, step.targets[own]).mean()
        # What the average recognises trains the masks only.
        taught = images.lerp(step.images[partner], mask.to(images.dtype))
        out = step.ema.requires_grad_(requires_grad=False)(taught).out
        pair = Sources(torch.stack([own, partner], 1), torch.stack([lam, 1 - lam], 1))
        recognised = mixed_loss(step.loss, out, pair, step.targets)
        return loss + unmixed + recognised + self.mask_weight * self.mask_loss(mask, lam.mean())

    def mask_loss(self, mask: Tensor, lam: Tensor) -> Tensor:
        """Return how much the mean of the masks differs from λ beyond the margin, a scalar."""
        return ((1 - mask.mean() - lam).abs() - self.mask_margin).relu()


def num_channels(model: Backbone, task: Task) -> int:
    """Return the number of channels of what `seen_by` returns of the task's images.

    Raises
    ------
    UsageError
        If the model computes its loss itself, with parameters that its average's loss would train.
    """
    if hasattr(model, "loss"):
        raise UsageError(
            f"{type(model).__name__} computes its own loss, which the average of the model cannot "
            "use: choose a task of classification, or mix in pre-training."
        )
    images = torch.zeros(2, getattr(task, "channels", 3), *task.image_size)
    training = model.training
    features = seen_by(model.eval(), images).features
    model.train(training)
    return features.shape[1]


def seen_by(model: Backbone, images: Tensor) -> Output:
    """Return the output of a model, with that of its last block but one, without gradients.

    Returns
    -------
    output
        ``out`` as of the model; ``features``, (B, D, h, w), of the last block but one.

    Raises
    ------
    UsageError
        If the model has a single block, or a block that does not return a feature map.
    """
    seen: list[Tensor] = []
    handles = [
        model.get_submodule(block).register_forward_hook(lambda _module, _in, out: seen.append(out))
        for block in model.blocks[-2:-1]
    ]
    try:
        with torch.no_grad():
            output: Output = model.forward(images.to(next(model.parameters()).dtype))
    finally:
        for handle in handles:
            handle.remove()
    if not seen or seen[0].dim() != 4:
        raise UsageError(
            f"{type(model).__name__} has no block whose output is a feature map: choose a "
            "convolutional network with two blocks or more."
        )
    return output._replace(features=seen[0].float())


def small_weights(module: nn.Module) -> None:
    """Draw the weights of a convolution as the source does, so that all masks begin even."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, std=0.01)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
