"""Per-item scores in a record: the primary metric of each test item, for paired comparisons.

Such metrics take few distinct values (for example right or wrong, or the number of overlap
thresholds reached). One byte per item therefore suffices, and the compressed text for 50,000 images
has a few kilobytes.
"""

import base64
import zlib
from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from mixbench.storage.strict_model import StrictModel

Floats = NDArray[np.float64]
MAX_LEVELS = 256
MAX_ITEMS = 1 << 20  # of a test split; more would be a compressed text that grows without bound
MAX_TEXT = 1 << 24


class Items(StrictModel):
    """The scores of the test items, in the order of the test split.

    Attributes
    ----------
    levels
        Distinct scores, in the metric's unit, in ascending order; at most 256.
    which
        Index into `levels` for each item, one byte per item, compressed with zlib and encoded in
        base64.
    """

    levels: Annotated[list[float], Field(min_length=1, max_length=MAX_LEVELS)]
    which: Annotated[str, Field(max_length=MAX_TEXT)]

    @property
    def scores(self) -> Floats:
        """The scores, shape (N,).

        Raises
        ------
        ValueError
            If `which` cannot be decoded, has over 2^20 items, or an index outside `levels`.
        """
        try:
            inflate = zlib.decompressobj()
            packed = inflate.decompress(base64.b64decode(self.which, validate=True), MAX_ITEMS)
            if not inflate.eof or inflate.unused_data:
                raise ValueError(f"they do not end after {len(packed)} items")
        except (ValueError, zlib.error) as error:
            raise ValueError(f"the scores of the items cannot be decoded ({error})") from error
        which = np.frombuffer(packed, np.uint8)
        if which.size and which.max() >= len(self.levels):
            raise ValueError("the scores of the items have an index that is not in levels")
        return np.array(self.levels)[which]


def pack(scores: ArrayLike) -> Items | None:
    """Pack the scores of items for a record; return None if there are over 256 distinct values."""
    levels, which = np.unique(np.asarray(scores, np.float64), return_inverse=True)
    if not 0 < len(levels) <= MAX_LEVELS:
        return None
    packed = zlib.compress(which.astype(np.uint8).tobytes(), 9)
    return Items(levels=levels.tolist(), which=base64.b64encode(packed).decode())
