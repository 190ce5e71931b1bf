"""Data that fits into memory: resident on the device, read and augmented in batches."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mixbench.contract import ClassIndex
from mixbench.errors import DataError

Augment = Callable[[Tensor, torch.Generator], Tensor]


@dataclass
class ResidentSplit:
    """A part of a task's data that stays in memory.

    Attributes
    ----------
    images : (N, C, H, W) float32
        Normalised.
    augment
        Applied to training batches; draws from the generator it is given.
    """

    images: Tensor
    targets: Tensor
    by_class: ClassIndex | None = None
    augment: Augment | None = None

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: Tensor, rng: torch.Generator | None) -> Tensor:
        """Return the items' images; augmented from `rng` unless it is None."""
        images = self.images[index]
        return self.augment(images, rng) if self.augment and rng is not None else images


def random_crop(images: Tensor, padding: int, rng: torch.Generator, fill: float = 0.0) -> Tensor:
    """Return every image, (B, C, H, W), shifted by up to `padding` pixels each way.

    What comes in from outside has the value `fill`.
    """
    size, _, height, width = images.shape
    padded = torch.nn.functional.pad(images, (padding,) * 4, value=fill)
    down, right = torch.randint(2 * padding + 1, (2, size), generator=rng).to(images.device)
    # All windows as a view (B, C, 2p+1, 2p+1, H, W): one indexing call takes each item's own.
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(size, device=images.device), :, down, right]


def stratified_holdout(classes: Tensor, share: float, rng: torch.Generator) -> Tensor:
    """Return which items are held out: the given share of every class, drawn at random.

    Returns
    -------
    held : (N,) bool

    Raises
    ------
    DataError
        If nothing of a class is held out, or nothing left to train on.
    """
    held = torch.zeros(len(classes), dtype=torch.bool)
    for name in classes.unique():
        members = torch.nonzero(classes == name).flatten()
        number = round(share * len(members))
        if not 0 < number < len(members):
            raise DataError(
                f"The held-out share must leave images of every class on both sides: class "
                f"{int(name)} has {len(members)}, of which {number} would be held out "
                f"(got {share})."
            )
        order = torch.randperm(len(members), generator=rng)
        held[members[order[:number]]] = True
    return held
