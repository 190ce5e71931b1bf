"""The primary metric of every test item, in a record: what runs are compared by, image by image.

Such metrics take few values (right or wrong, found at so many overlaps), so that a byte each tells
them, and a compressed text of some kilobytes holds those of 50,000 images.
"""

import base64
import zlib
from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from mixbench.storage.model import StrictModel

Floats = NDArray[np.float64]
MAX_LEVELS = 256


class Items(StrictModel):
    """The scores of the test items, in their order.

    Attributes
    ----------
    levels
        The values that occur, in the metric's unit, rising.
    which
        The level of each item, a byte each, compressed by zlib, in base64.
    """

    levels: Annotated[list[float], Field(min_length=1, max_length=MAX_LEVELS)]
    which: str

    @property
    def scores(self) -> Floats:
        """The scores, (N,).

        Raises
        ------
        ValueError
            If the text holds none.
        """
        try:
            packed = zlib.decompress(base64.b64decode(self.which, validate=True))
        except (ValueError, zlib.error) as error:
            raise ValueError(f"the scores of the items cannot be read ({error})") from error
        which = np.frombuffer(packed, np.uint8)
        if which.size and which.max() >= len(self.levels):
            raise ValueError("the scores of the items name levels that are not there")
        return np.array(self.levels)[which]


def pack(scores: ArrayLike) -> Items | None:
    """Return scores of items as records hold them; None if they take too many values."""
    levels, which = np.unique(np.asarray(scores, np.float64), return_inverse=True)
    if not 0 < len(levels) <= MAX_LEVELS:
        return None
    packed = zlib.compress(which.astype(np.uint8).tobytes(), 9)
    return Items(levels=levels.tolist(), which=base64.b64encode(packed).decode())
