"""The items of a part: captions of images, or images with all their captions."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from mixbench.vision.images.splits import IMAGENET_NORMALIZATION, StreamedSplit


class Told(NamedTuple):
    """An image, by its path below the data's folder, with the words of its captions."""

    file: str
    captions: list[list[str]]


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
        super().__init__(paths, targets, None, IMAGENET_NORMALIZATION, fit=fit)
        self.image = image

    def path(self, item: int) -> Path:
        """Return the file of an item's image."""
        return super().path(int(self.image[item]))

    def images(self) -> StreamedSplit:
        """Return the images, each once."""
        paths = [super(CaptionSplit, self).path(i) for i in range(len(self._paths))]
        whole = StreamedSplit(
            paths, torch.arange(len(paths)), None, IMAGENET_NORMALIZATION, fit=self._fit
        )
        return whole.to(self.device)
