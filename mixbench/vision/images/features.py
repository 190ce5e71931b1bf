"""Splits of image features that a frozen encoder has computed in advance."""

from copy import copy
from typing import Self

import torch
from torch import Tensor

from mixbench.contract import ClassIndex


class FeatureSplit:
    """A split whose items are image features; several items may share one image.

    Parameters
    ----------
    features : (M, D)
        Features of the M images.
    image : (N,) int64
        Row of `features` that belongs to each of the N items.
    targets : (N, ...)
        Targets of the N items.
    """

    by_class: ClassIndex | None = None

    def __init__(self, features: Tensor, image: Tensor, targets: Tensor) -> None:
        self.targets = targets
        self._features = features
        self._image = image

    def __len__(self) -> int:
        return len(self.targets)

    def to(self, device: torch.device) -> Self:
        """Return the same split with its features on a device; leave this one unchanged."""
        moved = copy(self)
        moved._features = self._features.to(device)
        return moved

    def read(self, index: Tensor, rng: torch.Generator | None) -> Tensor:  # noqa: ARG002  # nothing is augmented
        """Return the items' features, (B, D)."""
        return self._features[self._image[index].to(self._features.device)]
