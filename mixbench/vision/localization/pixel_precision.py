"""PxAP: the average precision of a score map's pixels against masks of the objects.

Defined by Choe et al., Evaluating Weakly Supervised Object Localization Methods Right, CVPR 2020,
arXiv:2001.07437, and computed as in clovaai/wsolevaluation@96f4b88, evaluation.py:339-416: the
pixels of all images are counted together, at 1,000 thresholds. Masks are part of a split's targets,
64 pixels to an int64.
"""

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mixbench.errors import DataError
from mixbench.vision.localization.box_accuracy import GRID, SIDE

MASK_WORDS = SIDE * SIDE // 64
EDGES = np.append(GRID, [1.0, 2.0])  # scores of 1 have a bin of their own


def packed(mask: NDArray[np.bool_]) -> Tensor:
    """Return a mask of any size as `MASK_WORDS` numbers, int64, after scaling it to a square.

    Each pixel of the square of `SIDE` takes the value of the mask's pixel at its upper left corner,
    as OpenCV's interpolation to the nearest does.
    """
    rows, columns = (
        np.floor(np.arange(SIDE) * (1 / (SIDE / length))).astype(np.int64) for length in mask.shape
    )
    return torch.from_numpy(np.packbits(mask[rows][:, columns]).view(np.int64))


def unpacked(words: Tensor) -> NDArray[np.bool_]:
    """Return the masks that `packed` packed, (N, SIDE, SIDE)."""
    bits = np.unpackbits(np.ascontiguousarray(words.numpy()).view(np.uint8), axis=1)
    return bits.reshape(-1, SIDE, SIDE).astype(np.bool_)


def pixel_average_precision(scores: Iterable[NDArray[np.float64]], words: Tensor) -> float:
    """Return PxAP in percent.

    Parameters
    ----------
    scores
        Score map of each of the N images, (SIDE, SIDE) in [0, 1].
    words : (N, MASK_WORDS) int64
        Their masks, packed.

    Raises
    ------
    DataError
        If all masks are empty.
    """
    if not words.any():
        raise DataError("All masks are empty, so PxAP is not defined.")
    counts = np.zeros((2, len(EDGES) - 1))
    for image, row in zip(scores, words, strict=True):
        inside = unpacked(row[None])[0]
        counts += [np.histogram(image[of], EDGES)[0] for of in (inside, ~inside)]
    right, wrong = counts[:, ::-1].cumsum(1)  # from the highest threshold down
    precision = right / np.maximum(right + wrong, 1)
    recall = right / right[-1]
    return float(100 * (precision * np.diff(recall, prepend=0)).sum())
