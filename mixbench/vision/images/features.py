"""A part of which a frozen encoder has seen every image once."""

from collections.abc import Callable
from copy import copy
from typing import Self

import torch
from torch import Tensor

from mixbench.contract import ClassIndex, Split

CHUNK = 200  # images that are encoded at once


class FeatureSplit:
    """Items that are features of images; several items may be of one image.

    Parameters
    ----------
    features : (M, D)
        Of every image.
    image : (N,) int64
        Of every item.
    """

    by_class: ClassIndex | None = None

    def __init__(self, features: Tensor, image: Tensor, targets: Tensor) -> None:
        self.targets = targets
        self._features = features
        self._image = image

    def __len__(self) -> int:
        return len(self.targets)

    def to(self, device: torch.device) -> Self:
        """Return the same split with its features on a device; this one stays as it is."""
        moved = copy(self)
        moved._features = self._features.to(device)
        return moved

    def read(self, index: Tensor, rng: torch.Generator | None) -> Tensor:  # noqa: ARG002  # nothing is augmented
        """Return the items' features, (B, D)."""
        return self._features[self._image[index].to(self._features.device)]


@torch.no_grad()
def encoded(encode: Callable[[Tensor], Tensor], images: Split) -> Tensor:
    """Return the features of all images of a part, (M, D), on the device that they are read for."""
    chunks = torch.arange(len(images)).split(CHUNK)
    return torch.cat([encode(images.read(chunk, None)) for chunk in chunks])
