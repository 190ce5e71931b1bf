"""Adversarial attacks by torchattacks, wrapped so that they leave the model unchanged.

Harry24k/adversarial-attacks-pytorch@936e86d, torchattacks/attack.py and attacks/: torchattacks
takes pixels in [0, 1] and clamps to that range, so the model must normalise its input itself. After
a call, torchattacks sets all modules of the model to training mode if the training flag of the
outermost module was set.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torchattacks
from torch import Tensor, nn
from torch.nn import functional as F

from mixbench.contract import Normalization, Output
from mixbench.declare.attacks import Attack
from mixbench.errors import MixbenchError

STEP = 1 / 4  # step size of PGD as a fraction of its eps: 2/255 for 8/255
TINY = torch.finfo(torch.float64).tiny
PROBED = 2  # images of a batch whose gradient is checked before an attack


class PixelModel(nn.Module):
    """Wrapper that turns a model of normalised images into one of pixels in [0, 1].

    Parameters
    ----------
    model
        Model to wrap; its training mode is not changed.
    read
        The method's function that turns the model's output into logits.
    pixels
        Mean and standard deviation with which the images are normalised.
    """

    def __init__(
        self, model: nn.Module, read: Callable[[Output], Tensor], pixels: Normalization
    ) -> None:
        super().__init__()
        self.model = model
        self.read = read
        like = next(model.parameters())
        self.mean, self.std = (like.new_tensor(v)[:, None, None] for v in pixels)
        self.training = False  # otherwise an attack leaves the model in training mode

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, (B, classes), float64, whose gradients do not vanish."""
        logits = self.read(self.model((images - self.mean) / self.std))
        scaled: Tensor = _UnitGradient.apply(logits)
        return scaled


class _UnitGradient(torch.autograd.Function):
    """Logits in float64, with the largest gradient of each image scaled to 1.

    Attacks use only the sign of the gradient with respect to the image. Where a model is very sure,
    the gradient of the cross-entropy is too small for float32: its sign would be 0, the image would
    not change, and the model would count as robust. If it is too small even for float64, it is
    replaced by the direction in which it vanishes: from the first class to the second.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        """Convert logits, (B, classes), to float64."""
        ctx.save_for_backward(logits)
        return logits.double()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Scale the gradient of every image."""
        (logits,) = ctx.saved_tensors
        largest = gradient.abs().amax(1, keepdim=True)
        if logits.shape[1] > 1:
            first, second = logits.topk(2, 1).indices.split(1, 1)
            limit = torch.zeros_like(gradient).scatter_(1, second, 1.0).scatter_(1, first, -1.0)
            gradient = torch.where(largest > 0, gradient, limit)
        scaled = gradient / gradient.abs().amax(1, keepdim=True).clamp_min(TINY)
        return scaled.to(logits.dtype)


def attacked(model: PixelModel, images: Tensor, classes: Tensor, attack: Attack) -> Tensor:
    """Return the images perturbed by an attack to raise the cross-entropy, in [0, 1].

    Parameters
    ----------
    model
        Model to attack.
    images : (B, C, H, W)
        Pixels in [0, 1].
    classes : (B,)
        True classes of the images.
    attack
        Kind of attack, its perturbation size and its space.
    """
    eps = attack.eps if attack.space == "pixel" else attack.eps * model.std
    made = (
        torchattacks.FGSM(model, eps)
        if attack.kind == "fgsm"
        else torchattacks.PGD(model, attack.eps, STEP * attack.eps, attack.steps)
    )
    changed: Tensor = made(images, classes)
    return changed


@contextmanager
def open_to_attacks(model: nn.Module) -> Iterator[None]:
    """Disable the gradients of the parameters within the context, and restore them afterwards.

    Gradients with respect to the images stay enabled.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.requires_grad = False
    try:
        with torch.enable_grad():
            yield
    finally:
        for parameter in trained:
            parameter.requires_grad = True


def check_attackable(model: PixelModel, images: Tensor, classes: Tensor) -> None:
    """Raise an error if the results of an attack would be meaningless.

    Raises
    ------
    MixbenchError
        If the images are not pixels in [0, 1], or the model gives no gradient with respect to
        them.
    """
    low, high = images.min().item(), images.max().item()
    if not 0 <= low <= high <= 1:  # also False for NaN
        raise MixbenchError(
            f"Images to be attacked must be pixels in [0, 1] (got {low:.4g} to {high:.4g}): "
            "return splits from the task's `load` that declare their normalization."
        )
    probe = images[:PROBED].clone().requires_grad_()
    named = f"{type(model.model).__name__} gives no gradient with respect to its images"
    remedy = "an attack needs one, so no layer may detach its input or be piecewise constant"
    try:
        loss = F.cross_entropy(model(probe), classes[:PROBED])
        found: Sequence[Tensor | None] = torch.autograd.grad(loss, probe, allow_unused=True)
    except RuntimeError as error:
        first = str(error).partition("\n")[0]
        raise MixbenchError(f"{named} ({first}): {remedy}.") from error
    if found[0] is None or not bool(found[0].any()):
        raise MixbenchError(f"{named}: {remedy}.")
