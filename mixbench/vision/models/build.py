"""From a backbone's name to a model."""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch

from mixbench.contract import Backbone
from mixbench.errors import UsageError
from mixbench.registry.timm_names import timm_models
from mixbench.vision.models.residual import PreActNet, ResidualNet


def _of_timm(name: str, channels: int, classes: int) -> Backbone:
    """Return one of timm's nets, changed for small images; only who wants one imports timm."""
    from mixbench.vision.models.timm_models import SMALL as OF_TIMM

    return OF_TIMM[name](channels, classes)


Sized = TypeVar("Sized", bound=Backbone)
SMALL_SIDE = 64  # pixels
# For images of 32 or 64 pixels; each takes channels and classes.
SMALL: dict[str, Callable[..., Backbone]] = {
    **{f"resnet{depth}": partial(ResidualNet, depth) for depth in (8, 14, 20, 32, 44, 56)},
    **{name: partial(_of_timm, name) for name in ("mobilenet_v2", "resnet50")},
    "preact_resnet56": partial(PreActNet, 56, bottleneck=False),
    "preact_resnet164": partial(PreActNet, 164, bottleneck=True),
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
        Of a net for small images, or of a model of timm; where both have one, `small` decides.
    size
        Height and width of the images.
    small
        Whether the images count as small; by default, those of up to 64 pixels do.

    Raises
    ------
    UsageError
        If the model does not take images of this size.
    """
    if small is None:
        small = max(size) <= SMALL_SIDE
    if name in SMALL and (small or name not in timm_models()):
        return sized(SMALL[name](channels=channels, classes=classes), channels, size)
    from mixbench.vision.models.timm_models import timm_net

    return sized(timm_net(name, classes, channels, size), channels, size)


def sized(model: Sized, channels: int, size: tuple[int, int]) -> Sized:
    """Give a model the depth and size of its feature map: ``feature_dim``, ``feature_size``.

    Raises
    ------
    UsageError
        If what it returns is no map.
    """
    model.eval()
    with torch.no_grad():
        features = model(torch.zeros(1, channels, *size)).features
    if features.dim() != 4:  # (1, D, h, w)
        raise UsageError(f"{type(model).__name__} has no map of features for images of {size}.")
    model.feature_dim = features.shape[1]
    model.feature_size = (features.shape[2], features.shape[3])
    return model.train()
