"""The losses that a recipe sets in place of the task's cross-entropy."""

import torch
from torch import Tensor
from torch.nn import functional as F

from mixbench.contract import Loss, MixedTargetLoss, Sources, Task
from mixbench.declare import Recipe
from mixbench.errors import UsageError
from mixbench.vision.tasks.classification import Classification


def criterion(task: Task, recipe: Recipe) -> Loss | None:
    """Return the loss that a recipe sets; None for the loss of the task, or of its model.

    Raises
    ------
    UsageError
        If the recipe sets a loss and the task's is not the cross-entropy of one class per image.
    """
    if not (recipe.label_smoothing or recipe.bce_loss):
        return None
    if not isinstance(task, Classification) or type(task).loss is not Classification.loss:
        field = "bce_loss" if recipe.bce_loss else "label_smoothing"
        raise UsageError(
            f"{field} must not be set for {type(task).__name__}: it replaces the cross-entropy of "
            "tasks with one class per image, and this task has another loss."
        )
    if recipe.bce_loss:
        return BinaryCrossEntropy(
            task.num_classes, recipe.label_smoothing, recipe.bce_target_thresh
        )
    return SmoothedCrossEntropy(recipe.label_smoothing)


class SmoothedCrossEntropy:
    """Cross-entropy with smoothed targets.

    Parameters
    ----------
    smoothing
        Share of every target that is spread evenly over all classes.
    """

    def __init__(self, smoothing: float) -> None:
        self._smoothing = smoothing

    def __call__(self, out: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of each item, (B,)."""
        return F.cross_entropy(out, targets, reduction="none", label_smoothing=self._smoothing)


class BinaryCrossEntropy(MixedTargetLoss):
    """Binary cross-entropy of every class, averaged over the classes.

    It is computed from mixed targets, because a threshold is not linear in them
    (huggingface/pytorch-image-models@aa4b585, timm/loss/binary_cross_entropy.py).

    Parameters
    ----------
    num_classes
        Number of classes.
    smoothing
        Share of every target that is spread evenly over all classes, before the threshold.
    threshold
        Mixed targets above it become 1 and others 0; 0 leaves them as they are.
    """

    def __init__(self, num_classes: int, smoothing: float, threshold: float) -> None:
        self._num_classes, self._smoothing = num_classes, smoothing
        self._threshold = threshold

    def __call__(self, out: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of each unmixed item, (B,)."""
        return self._of(out, F.one_hot(targets, self._num_classes).to(torch.float32))

    def mixed(self, out: Tensor, sources: Sources, targets: Tensor) -> Tensor:
        """Return the loss of each mixed item, (B,)."""
        of_sources = F.one_hot(targets[sources.index], self._num_classes)
        return self._of(out, (of_sources * sources.weight[..., None]).sum(1))

    def _of(self, out: Tensor, targets: Tensor) -> Tensor:
        targets = targets * (1 - self._smoothing) + self._smoothing / self._num_classes
        if self._threshold:
            targets = targets.gt(self._threshold).to(out.dtype)
        return F.binary_cross_entropy_with_logits(out, targets, reduction="none").mean(-1)
