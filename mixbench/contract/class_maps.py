"""Class activation maps of a classifier of pooled features (Zhou et al., arXiv:1512.04150).

They are computed as in clovaai/wsolevaluation@96f4b88, wsol/resnet.py:109-114.
"""

import torch
from torch import Tensor

from mixbench.contract.backbone import Backbone
from mixbench.errors import UsageError


def check_maps(model: Backbone, name: str) -> None:
    """Raise an error if a model gives no class activation maps.

    Raises
    ------
    UsageError
        If its last features have fewer than four positions, or its classifier does not take the
        mean of these features.
    """
    height, width = model.feature_size
    if height * width < 4:  # two points along each axis
        raise UsageError(
            f"{name} gives no class activation maps: its last features are {height} x {width} and "
            "must be at least 2 x 2. Use larger images or choose another model with --model."
        )
    taken = class_weights(model).shape[1]
    if taken != model.feature_dim:
        raise UsageError(
            f"{name} gives no class activation maps: its classifier takes {taken} features, and "
            f"its last map has {model.feature_dim} channels. Choose another model with --model."
        )


def class_weights(model: Backbone) -> Tensor:
    """Return the classifier's weight of every feature for every class, (K, D)."""
    weight = getattr(model.get_submodule("classifier"), "weight", torch.empty(0, 0))
    return weight.flatten(1)  # a classifier may be a convolution of 1x1


def class_maps(model: Backbone, features: Tensor, classes: Tensor) -> Tensor:
    """Return the class activation map of each image for its class.

    Parameters
    ----------
    features : (B, D, h, w)
        Last feature maps of the images.
    classes : (B,) int64
        Class of each image for which the map is computed.

    Returns
    -------
    maps : (B, h, w) float32
        Weighted means over the channels. Negative values are kept.
    """
    weights = class_weights(model)[classes].to(features.dtype)
    return (weights[:, :, None, None] * features).mean(1).float()
