"""Class activation maps (Zhou et al., arXiv:1512.04150): where a classifier sees a class.

As clovaai/wsolevaluation@96f4b88, wsol/resnet.py:109-114 and inference.py:42-66, draws, enlarges
and normalises them.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from mixbench.contract import Backbone
from mixbench.errors import Diverged, UsageError


def check_maps(model: Backbone, name: str) -> None:
    """Refuse a model of which no maps can be drawn.

    Raises
    ------
    UsageError
        If its last features are one point, or its classifier does not take their mean.
    """
    height, width = model.feature_size
    if height * width < 4:  # two points along each axis
        raise UsageError(
            f"{name} has no map of where a class is: its last features are {height} x {width}. "
            "Take larger images or another model."
        )
    taken = class_weights(model).shape[1]
    if taken != model.feature_dim:
        raise UsageError(
            f"{name} has no map of where a class is: its classifier takes {taken} numbers, and its "
            f"last map has {model.feature_dim} at every point. Take another model."
        )


def class_weights(model: Backbone) -> Tensor:
    """Return what the model's classifier gives every feature for every class, (K, D)."""
    weight = getattr(model.get_submodule("classifier"), "weight", torch.empty(0, 0))
    return weight.flatten(1)  # a classifier may be a convolution of 1x1


def class_maps(model: Backbone, features: Tensor, classes: Tensor) -> Tensor:
    """Return one map for each item: what every point of its features says for its class.

    Parameters
    ----------
    features : (B, D, h, w)
    classes : (B,) int64

    Returns
    -------
    maps : (B, h, w) float32
        Means over the features, with their sign.
    """
    weights = class_weights(model)[classes].to(features.dtype)
    return (weights[:, :, None, None] * features).mean(1).float()


def score_maps(maps: Tensor, side: int) -> NDArray[np.float64]:
    """Return maps as scores of the pixels of a square image, (B, side, side) in [0, 1].

    Every map is stretched between 0 and 1; one that is everywhere the same becomes 0.

    Raises
    ------
    Diverged
        If a map is not finite.
    """
    wrong = torch.nonzero(~maps.isfinite().flatten(1).all(1)).flatten()
    if len(wrong):
        raise Diverged(
            f"The map of image {int(wrong[0])} is not finite (of {len(wrong)} of {len(maps)}): "
            "the model's weights or features are not."
        )
    size = (side, side)
    flat = maps.amax((1, 2)) == maps.amin((1, 2))  # which rounding would not leave flat
    # In double precision the result is OpenCV's cubic interpolation to the last bits.
    scores = F.interpolate(maps.double()[:, None], size, mode="bicubic")[:, 0].numpy()
    scores = scores - scores.min((1, 2), keepdims=True)
    peaks = scores.max((1, 2), keepdims=True)
    normal: NDArray[np.float64] = np.divide(
        scores, peaks, out=np.zeros_like(scores), where=(peaks > 0) & ~flat.numpy()[:, None, None]
    )
    return normal
