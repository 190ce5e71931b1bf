"""Intersection over union of boxes whose first and last pixels both count, as in Pascal VOC.

torchvision's `box_iou` takes a box's end for the edge behind its last pixel, so it cannot be used.
"""

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64] | NDArray[np.float32] | NDArray[np.float64]


def box_iou(boxes: Numbers, others: Numbers) -> NDArray[np.float64]:
    """Return the intersection over union of every box with every other, (..., D, M).

    Parameters
    ----------
    boxes : (..., D, 4)
        First column, first row, last column, last row.
    others : (..., M, 4)
    """
    first = np.maximum(boxes[..., :, None, :2], others[..., None, :, :2])
    last = np.minimum(boxes[..., :, None, 2:], others[..., None, :, 2:])
    common = np.maximum(0, last - first + 1).prod(-1)
    areas, other_areas = ((b[..., 2:] - b[..., :2] + 1).prod(-1) for b in (boxes, others))
    union = areas[..., :, None] + other_areas[..., None, :] - common
    iou = np.zeros(common.shape)
    np.divide(common, union, out=iou, where=union > 0)
    return iou
