"""The items of a part: captions of images, or images with all their captions."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from mixbench.images.splits import IMAGENET_PIXELS, StreamedSplit


class CaptionSplit(StreamedSplit):
    """Items that are captions of images, or images with all their captions.

    Parameters
    ----------
    paths
        Of the images.
    image : (N,) int64
        Of every item.
    """

    def __init__(
        self, paths: Sequence[Path], image: Tensor, targets: Tensor, fit: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__(paths, targets, None, IMAGENET_PIXELS, fit=fit)
        self.image = image

    def path(self, item: int) -> Path:
        """Return the file of an item's image."""
        return super().path(int(self.image[item]))

    def images(self) -> StreamedSplit:
        """Return the images, each once."""
        number = len(self._paths)
        return CaptionSplit(
            [super(CaptionSplit, self).path(i) for i in range(number)],
            torch.arange(number), torch.arange(number), self._fit,
        ).to(self.device)  # fmt: skip
