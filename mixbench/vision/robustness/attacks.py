"""Attacks on a model's pixels, made by torchattacks, and what they would otherwise leave behind.

Harry24k/adversarial-attacks-pytorch@936e86d, torchattacks/attack.py and attacks/: it takes pixels
in [0, 1] and clamps to them, so the model must normalise inside; and it puts all of the model that
it was given in training mode after a call if the outermost flag was set.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torchattacks
from torch import Tensor, nn
from torch.nn import functional as F

from mixbench.contract import Output
from mixbench.declare.attacks import Attack
from mixbench.errors import MixbenchError
from mixbench.vision.images.splits import Normalization

STEP = 1 / 4  # of PGD, in parts of its eps: 2/255 for 8/255
PROBED = 2  # images of a batch whose gradient is looked at before an attack


class PixelModel(nn.Module):
    """A model of normalised images, as one of pixels in [0, 1] that returns logits.

    Parameters
    ----------
    model
        Its mode is left as it is.
    read
        The method's reading of what the model returns.
    """

    def __init__(
        self, model: nn.Module, read: Callable[[Output], Tensor], pixels: Normalization
    ) -> None:
        super().__init__()
        self.model = model
        self.read = read
        like = next(model.parameters())
        self.mean, self.std = (like.new_tensor(v)[:, None, None] for v in pixels)
        self.training = False  # otherwise an attack ends by training mode, for the model as well

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, (B, classes)."""
        return self.read(self.model((images - self.mean) / self.std))


def attacked(model: PixelModel, images: Tensor, classes: Tensor, attack: Attack) -> Tensor:
    """Return the images as an attack changes them, in [0, 1], to raise the cross-entropy.

    Parameters
    ----------
    images : (B, C, H, W)
        Pixels in [0, 1].
    classes : (B,)
        The true ones.
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
    """Let gradients flow to images and to nothing else; leave the model as it was."""
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
    """Refuse what an attack would make nonsense of.

    Raises
    ------
    MixbenchError
        If images are no pixels in [0, 1], or the model gives no gradient with respect to them.
    """
    low, high = images.min().item(), images.max().item()
    if not 0 <= low <= high <= 1:  # not a number is neither
        raise MixbenchError(
            f"Images to be attacked must be pixels in [0, 1] (got {low:.4g} to {high:.4g}): a "
            "task's parts must tell how they are normalised."
        )
    probe = images[:PROBED].clone().requires_grad_()
    named = f"{type(model.model).__name__} gives no gradient with respect to its images"
    remedy = "an attack needs one, so no layer may detach them or count as constant"
    try:
        loss = F.cross_entropy(model(probe), classes[:PROBED])
        found: Sequence[Tensor | None] = torch.autograd.grad(loss, probe, allow_unused=True)
    except RuntimeError as error:
        first = str(error).partition("\n")[0]
        raise MixbenchError(f"{named} ({first}): {remedy}.") from error
    if found[0] is None or not bool(found[0].any()):
        raise MixbenchError(f"{named}: {remedy}.")
