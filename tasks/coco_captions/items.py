"""Splits of captions: one item per caption, or one per image with all its captions."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from mixbench.vision.images.splits import IMAGENET_NORMALIZATION, StreamedSplit


class Told(NamedTuple):
    """An image, given by its path relative to the data folder, and the words of its captions."""

    file: str
    captions: list[list[str]]


class CaptionSplit(StreamedSplit):
    """A split whose items are captions of images, or images with all their captions.

    Parameters
    ----------
    paths
        Files of the images, one per image.
    image : (N,) int64
        Index into `paths` of the image of every item.
    targets
        Word ids of the caption or captions of every item.
    fit
        Function that resizes an image to the size that the model takes.
    """

    def __init__(
        self, paths: Sequence[Path], image: Tensor, targets: Tensor, fit: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__(paths, targets, None, IMAGENET_NORMALIZATION, fit=fit)
        self.image = image

    def path(self, item: int) -> Path:
        """Return the image file of an item."""
        return super().path(int(self.image[item]))

    def images(self) -> StreamedSplit:
        """Return a split with one item per image."""
        paths = [super(CaptionSplit, self).path(i) for i in range(len(self._paths))]
        whole = StreamedSplit(
            paths, torch.arange(len(paths)), None, IMAGENET_NORMALIZATION, fit=self._fit
        )
        return whole.to(self.device)
