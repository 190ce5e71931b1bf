"""The task that a training loop of the user's own stands for."""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from mixbench.contract import Normalization, Task
from mixbench.contract.step import Loss
from mixbench.streams import generator


class OwnTask(Task):
    """Classification of images of which nothing is known but their size and number of classes.

    Parameters
    ----------
    classes
        Number of classes.
    size
        Height and width of the images in pixels.
    loss
        Function of logits and class indices that returns the loss of each image, (B,); by default
        the cross-entropy.
    normalization
        Mean and standard deviation of each channel, if they are known.
    """

    def __init__(
        self,
        classes: int,
        size: tuple[int, int],
        loss: Loss | None = None,
        normalization: Normalization | None = None,
    ) -> None:
        self.num_classes, self.image_size = classes, size
        self.normalization = normalization
        self._loss = loss

    def loss(self, out: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of every image, (B,)."""
        if self._loss is not None:
            return self._loss(out, targets)
        return F.cross_entropy(out, targets, reduction="none")

    def new_classifier(self, feature_dim: int) -> nn.Module:
        """Return a linear classifier for pooled features."""
        return nn.Linear(feature_dim, self.num_classes)


def soft(labels: Tensor, classes: int) -> Tensor:
    """Return labels as probabilities, (B, classes) float: class indices become one-hot rows."""
    if labels.is_floating_point():
        return labels
    return F.one_hot(labels.to(torch.int64), classes).to(torch.float32)


def draws_of(seed: int, step: int) -> torch.Generator:
    """Return the generator with which a method draws in a step; each process has its own."""
    if dist.is_available() and dist.is_initialized():
        step = step * dist.get_world_size() + dist.get_rank()
    return generator(seed, "mix", step)
