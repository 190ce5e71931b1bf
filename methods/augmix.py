"""AugMix: average several chains of random operations; three views of an image agree.

Paper    Hendrycks et al., AugMix: A Simple Data Processing Method to Improve Robustness and
         Uncertainty, ICLR 2020, arXiv:1912.02781, §3
Source   google-research/augmix@9b9824c, augmentations.py:35-149, cifar.py:152-245
Differs  in the implementation of the operations, which are torchvision's; as in the source, images
         are rounded to bytes after each. The model gets the first view by itself, and the other two
         together, where the source passes all three at once; batch norms notice.
         Westlake-AI/openmixup@37e1372 has neither the unmixed view nor the loss of the agreement
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as V

from mixbench.contract import Method, Output, Sources, Split, Step, Task, check_single_label
from mixbench.declare import Count, CountOrZero, NonNegative, Positive
from mixbench.errors import UsageError
from mixbench.kernels import beta

BILINEAR = InterpolationMode.BILINEAR


class AugMix(Method):
    """Augment each image twice, and train on both views and on the image itself.

    Parameters
    ----------
    severity
        Largest strength of an operation, from 0 to 10: 3 in the source for CIFAR, 1 for ImageNet.
    width
        Number of chains of operations.
    depth
        Number of operations in a chain; 0 for one to three at random.
    alpha
        Parameter of the distributions of the weights of the chains and of the image.
    jsd
        Weight of the Jensen-Shannon divergence between the three predictions.
    """

    version = 1
    exempt = {
        "weights_match_pixels": "an image is augmented, and not mixed with others",
        "identical_images_are_unchanged": "every image is augmented",
        "loss_fits_the_sources": "only the prediction for the image itself meets its label",
    }

    def __init__(
        self,
        severity: Positive = 3.0,
        width: Count = 3,
        depth: CountOrZero = 0,
        alpha: Positive = 1.0,
        jsd: NonNegative = 12.0,
    ) -> None:
        super().__init__()
        self.severity, self.width, self.depth = severity, width, depth
        self.alpha, self.jsd = alpha, jsd

    def check(self, task: Task, held_out: Split | None) -> None:  # noqa: ARG002  # the contract
        """Check that images have one class and a known range of pixels."""
        check_single_label(task, "augmix")
        if task.normalization is None:
            raise UsageError(
                "augmix needs a task that says how its images are normalised (`normalization`): "
                "choose another task or method."
            )

    def mix(self, x: Tensor, step: Step) -> tuple[Tensor, Sources]:
        """Return an augmented view of the batch, and tell the loss of a second one."""
        assert step.task.normalization is not None
        mean, std = (x.new_tensor(values)[:, None, None] for values in step.task.normalization)
        pixels = x * std + mean
        views = [
            torch.stack([self._augmented(image, step.rng) for image in pixels]) for _ in range(2)
        ]
        step.num_saliency_images += 2 * len(x)  # in the loss
        first, second = (((view - mean) / std).to(x.dtype) for view in views)
        sources = Sources.unmixed(x)
        return first, Sources(sources.index, sources.weight, (second, x))

    def loss(self, output: Output, sources: Sources, step: Step) -> Tensor:
        """Return the loss of the unmixed images, and the divergence of the three views."""
        if not sources.more:
            return super().loss(output, sources, step)
        own, (second, unmixed) = sources.index[:, 0], sources.more
        second_out, out = step.model(torch.cat([second, unmixed])).out.chunk(2)
        loss = step.loss(out, step.targets[own]).mean()
        views = (output.out, second_out, out)
        shown = torch.stack([view.float().softmax(1) for view in views])
        middle = shown.mean(0).clamp(1e-7, 1).log()
        divergence = (shown * (shown.clamp_min(1e-38).log() - middle)).sum(2).mean()
        return loss + self.jsd * divergence

    def _augmented(self, image: Tensor, rng: torch.Generator) -> Tensor:
        """Return the weighted mean of an image and of its chains of operations, (C, H, W)."""
        gammas = torch._standard_gamma(torch.full((self.width,), self.alpha), generator=rng)
        shares = (gammas / gammas.sum()).tolist()
        kept = 1 - float(beta(self.alpha, rng))
        start = (image * 255).round().clamp(0, 255).to(torch.uint8)
        mixed = torch.zeros_like(image)
        for share in shares:
            number = self.depth or int(torch.randint(1, 4, (), generator=rng))
            changed = start
            for _ in range(number):
                which = int(torch.randint(len(OPERATIONS), (), generator=rng))
                drawn = torch.rand(2, generator=rng).tolist()
                level = min(0.1 + drawn[0] * (self.severity - 0.1), 10.0) / 10
                sign = 1 if drawn[1] > 0.5 else -1
                changed = OPERATIONS[which](changed, level, sign)
            mixed += share * (changed.to(image.dtype) / 255)
        return kept * image + (1 - kept) * mixed


def _sheared(image: Tensor, x: float, y: float) -> Tensor:
    """Return an image whose rows, or columns, are shifted in proportion to their place."""
    angles = [float(torch.tensor(share).atan().rad2deg()) for share in (x, y)]
    corner = [0.0, 0.0]  # as PIL's affine transform, about the upper left
    sheared: Tensor = V.affine(image, 0.0, [0, 0], 1.0, angles, BILINEAR, center=corner)
    return sheared


def _translated(image: Tensor, x: int, y: int) -> Tensor:
    """Return an image that is moved by whole pixels; what is uncovered is black."""
    moved: Tensor = V.affine(image, 0.0, [x, y], 1.0, [0.0, 0.0])
    return moved


# Each takes an image of bytes, the strength from 0 to 1, and a sign. Color, contrast, brightness
# and sharpness are left out, because the corruptions of ImageNet-C contain them.
OPERATIONS: tuple[Callable[[Tensor, float, int], Tensor], ...] = (
    lambda image, _level, _sign: V.autocontrast(image[:, None])[:, 0],  # each channel by itself
    lambda image, _level, _sign: V.equalize(image[:, None])[:, 0],
    lambda image, level, _sign: V.posterize(image, 4 - int(level * 4)),
    lambda image, level, sign: V.rotate(image, sign * float(int(level * 30)), BILINEAR),
    lambda image, level, _sign: V.solarize(image, 256 - int(level * 256)),
    lambda image, level, sign: _sheared(image, sign * level * 0.3, 0.0),
    lambda image, level, sign: _sheared(image, 0.0, sign * level * 0.3),
    lambda image, level, sign: _translated(image, sign * int(level * image.shape[2] / 3), 0),
    lambda image, level, sign: _translated(image, 0, sign * int(level * image.shape[1] / 3)),
)
