"""Scores of pixels from class activation maps.

Maps are upsampled and normalised as in clovaai/wsolevaluation@96f4b88, wsol/resnet.py:109-114 and
inference.py:42-66.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from mixbench.errors import Diverged


def score_maps(maps: Tensor, side: int) -> NDArray[np.float64]:
    """Upsample maps to scores of the pixels of a square image, (B, side, side) in [0, 1].

    Every map is scaled to the range from 0 to 1; a constant map becomes 0.

    Raises
    ------
    Diverged
        If a map is not finite.
    """
    wrong = torch.nonzero(~maps.isfinite().flatten(1).all(1)).flatten()
    if len(wrong):
        raise Diverged(
            f"The map of image {int(wrong[0])} is not finite ({len(wrong)} of {len(maps)} maps): "
            "the model's weights or features are not finite."
        )
    size = (side, side)
    flat = maps.amax((1, 2)) == maps.amin((1, 2))  # before rounding errors
    # In double precision the result equals OpenCV's cubic interpolation up to the last bits.
    scores = F.interpolate(maps.double()[:, None], size, mode="bicubic")[:, 0].numpy()
    scores = scores - scores.min((1, 2), keepdims=True)
    peaks = scores.max((1, 2), keepdims=True)
    normal: NDArray[np.float64] = np.divide(
        scores, peaks, out=np.zeros_like(scores), where=(peaks > 0) & ~flat.numpy()[:, None, None]
    )
    return normal
