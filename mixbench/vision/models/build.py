"""Construction of backbones by name."""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch

from mixbench.contract import Backbone
from mixbench.errors import UsageError
from mixbench.registry.model_names import TORCHVISION, timm_models
from mixbench.vision.models.residual import PreActNet, ResidualNet


def _of_timm(name: str, channels: int, classes: int) -> Backbone:
    """Return a timm model adapted to small images; timm is imported only here, when needed."""
    from mixbench.vision.models.timm_models import SMALL as OF_TIMM

    return OF_TIMM[name](channels, classes)


Sized = TypeVar("Sized", bound=Backbone)
SMALL_SIDE = 64  # maximum side of small images, in pixels
# Networks for images of 32 or 64 pixels; each takes the number of channels and of classes.
SMALL: dict[str, Callable[..., Backbone]] = {
    **{f"resnet{depth}": partial(ResidualNet, depth) for depth in (8, 14, 20, 32, 44, 56)},
    # For images of 64 pixels: four times as fast, and its last map has 8x8 positions too.
    "resnet8_s2": partial(ResidualNet, 8, strides=(2, 2, 2)),
    **{name: partial(_of_timm, name) for name in ("mobilenet_v2", "resnet50")},
    "preact_resnet56": partial(PreActNet, 56, bottleneck=False),
    "preact_resnet164": partial(PreActNet, 164, bottleneck=True),
}
# ViTs and ConvNeXts for small images, by the name of the timm model whose patches are changed.
SMALL_PATCHES = {
    "vit_small": "vit_small_patch16_224",
    "vit_tiny": "vit_tiny_patch16_224",
    "small_test_vit": "test_vit",
    "small_convnext_tiny": "convnext_tiny",
    "small_convnext_atto": "convnext_atto",
    "small_test_convnext": "test_convnext",
}


def build(
    name: str,
    *,
    classes: int,
    size: tuple[int, int],
    channels: int = 3,
    small: bool | None = None,
) -> Backbone:
    """Return a freshly initialised backbone.

    Parameters
    ----------
    name
        Name of a network for small images or of a timm model; if both exist, `small` decides. Also
        the name of a model of torchvision, with its prefix, and the path of a file that builds one.
    classes
        Number of outputs of the classifier.
    size
        Height and width of the images in pixels.
    channels
        Number of channels of the images.
    small
        Whether the images count as small; by default, if both sides are at most 64 pixels.

    Raises
    ------
    UsageError
        If the model does not accept images of this size.
    """
    if name.endswith(".py") or name.startswith(TORCHVISION):
        from mixbench.vision.models.own_net import own_net

        return own_net(name, classes, (channels, *size))
    if small is None:
        small = max(size) <= SMALL_SIDE
    if name in SMALL_PATCHES:
        from mixbench.vision.models.timm_models import small_patches

        return sized(small_patches(SMALL_PATCHES[name], channels, classes, size), channels, size)
    if name in SMALL and (small or name not in timm_models()):
        return sized(SMALL[name](channels=channels, classes=classes), channels, size)
    from mixbench.vision.models.timm_models import timm_net

    return sized(timm_net(name, classes, channels, size), channels, size)


def sized(model: Sized, channels: int, size: tuple[int, int]) -> Sized:
    """Set ``feature_dim`` and ``feature_size`` of a model and return it.

    Both are measured on the feature map of a blank image.

    Raises
    ------
    UsageError
        If the model's features are not a map of shape (B, D, h, w).
    """
    model.eval()
    blank = torch.zeros(1, channels, *size, device=next(model.parameters()).device)
    with torch.no_grad():
        features = model(blank).features
    if features.dim() != 4:  # (1, D, h, w)
        raise UsageError(
            f"{type(model).__name__} has no feature map for images of {size}: choose another model."
        )
    model.feature_dim = features.shape[1]
    model.feature_size = (features.shape[2], features.shape[3])
    return model.train()
