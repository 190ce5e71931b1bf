"""The inputs of a method in one training step (`Step`) and its description of a mix (`Sources`)."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from mixbench.contract.backbone import Backbone
from mixbench.contract.task import Split, Task
from mixbench.errors import MixbenchError


class Sources(NamedTuple):
    """The batch items that each mixed item is made of, and their weights.

    K is the number of sources per item: 1 for unmixed items, 2 for pairs, k for k-way mixes, and
    the number of grid cells for grids.

    Attributes
    ----------
    index : (B, K) int64
        Position of each source in the batch.
    weight : (B, K) float32
        Weight of each source, non-negative; each row sums to 1.
    """

    index: Tensor  # type: ignore[assignment]  # shadows tuple.index, which is not used here
    weight: Tensor

    def rows(self, rows: slice | Tensor) -> "Sources":
        """Return the sources of the given rows of the mixed batch."""
        return Sources(self.index[rows], self.weight[rows])

    @classmethod
    def unmixed(cls, x: Tensor) -> "Sources":
        """Return the sources of an unmixed batch: each item is its own only source."""
        own = torch.arange(len(x), device=x.device)[:, None]
        return cls(own, torch.ones(own.shape, device=x.device))

    @classmethod
    def pair(cls, partner: Tensor, lam: Tensor | float) -> "Sources":
        """Return the sources of a batch in which each item is mixed with one partner.

        Parameters
        ----------
        partner : (B,) int64
            Position in the batch of each item's partner.
        lam : (B,) or a number, in [0, 1]
            Weight of the item itself; its partner has the weight ``1 - lam``.
        """
        own = torch.arange(len(partner), device=partner.device)
        share = torch.as_tensor(lam, dtype=torch.float32, device=partner.device).expand(len(own))
        return cls(torch.stack([own, partner], 1), torch.stack([share, 1 - share], 1))


class Draws(NamedTuple):
    """The items that a method will draw by class in a step, as `Method.draws` announces them.

    Attributes
    ----------
    classes : (M,) int64
        Class of each item, as `Step.draw` will get them.
    replaced : (B,) bool
        Items of the batch that the method will not use, because drawn ones take their places. Their
        images are not read.
    """

    classes: Tensor
    replaced: Tensor


class ReadAhead(NamedTuple):
    """Items that were drawn and read before the step.

    Attributes
    ----------
    classes : (M,) int64
        The classes that were announced.
    images : (B + M, C, H, W)
        The images of the batch, followed by the drawn ones.
    targets : (B + M, ...)
        Their targets.
    """

    classes: Tensor
    images: Tensor
    targets: Tensor


class Step:
    """The inputs of a method in one training step.

    Attributes
    ----------
    images : (B, C, H, W)
        Images of the unmixed batch. `draw` appends to them.
    targets : (B, ...)
        Targets of the batch, which methods do not interpret: class indices, multi-hot vectors or
        captions. `draw` appends to them, too.
    rng
        Random generator on the CPU; the only source of randomness that the method may use.
    task
        Task that is being trained.
    model
        Model that is being trained.
    num_saliency_images
        Number of images for which `saliency` ran a forward and a backward pass in this step.
    site
        Site at which this step mixes: ``"input"``, ``"block1"``, ``"block2"``, ...

    Parameters
    ----------
    images : (B, C, H, W)
        Initial value of the attribute `images`.
    targets : (B, ...)
        Initial value of the attribute `targets`.
    rng
        Value of the attribute `rng`.
    task
        Value of the attribute `task`.
    model
        Value of the attribute `model`.
    split
        Split from which `draw` reads further items; None if `draw` is not available.
    read_ahead
        The items that the method announced (`Method.draws`), if they were read with the batch.
    overwritable
        Whether the method may overwrite the batch, because nothing else reads it, as in training.
    """

    def __init__(  # noqa: PLR0913  # the components of a step
        self,
        images: Tensor,
        targets: Tensor,
        *,
        rng: torch.Generator,
        task: Task,
        model: Backbone,
        split: Split | None = None,
        read_ahead: "ReadAhead | None" = None,
        overwritable: bool = False,
    ) -> None:
        self.images = images
        self.targets = targets
        self.rng = rng
        self.task = task
        self.model = model
        self.site = "input"
        self.num_saliency_images = 0
        self._overwritable = overwritable
        self._split = split
        self._read_ahead = read_ahead

    def loss(self, out: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of each item, (B,); a model's own `loss` replaces the task's."""
        own: Callable[[Tensor, Tensor], Tensor] = getattr(self.model, "loss", self.task.loss)
        return own(out, targets)

    def may_overwrite(self, x: Tensor) -> bool:
        """Return whether `x` may be modified in place: only the batch, if nothing else reads it."""
        return self._overwritable and x is self.images

    def draw(self, classes: Tensor) -> Tensor:
        """Append one augmented item, drawn from the split, to the batch for each given class.

        Parameters
        ----------
        classes : (M,) int64
            Class of each item to draw; a class may occur several times.

        Returns
        -------
        positions : (M,) int64
            Positions of the new items in `images` and `targets`.

        Raises
        ------
        MixbenchError
            If the task has no classes, if a given class has no items, or if other classes were
            announced.
        """
        if self._read_ahead is not None:
            return self._take(self._read_ahead, classes)
        if self._split is None or self._split.by_class is None:
            raise MixbenchError("This method draws images by class: it needs a task with classes.")
        start = len(self.images)
        if not len(classes):
            return classes.new_zeros(0, dtype=torch.int64, device=self.images.device)
        index = self._split.by_class.draw(classes.cpu(), self.rng)
        drawn = self._split.read(index, self.rng).to(self.images)
        self.images = torch.cat([self.images, drawn])
        self.targets = torch.cat([self.targets, self._split.targets[index].to(self.targets)])
        return torch.arange(start, len(self.images), device=self.images.device)

    def _take(self, ahead: "ReadAhead", classes: Tensor) -> Tensor:
        """Take the items that were read with the batch."""
        if not torch.equal(ahead.classes, classes.cpu()):
            raise MixbenchError(
                "The method must draw the classes that its `draws` announces: "
                f"{len(ahead.classes)} classes (got {len(classes)}"
                f"{', others' if len(classes) == len(ahead.classes) else ''})."
            )
        start = len(self.images)
        self.images, self.targets, self._read_ahead = ahead.images, ahead.targets, None
        return torch.arange(start, len(self.images), device=self.images.device)

    def saliency(self) -> Tensor:
        """Return the norm of the loss's gradient at each pixel, (B, H, W).

        The model runs in evaluation mode; its mode and its parameters' gradients do not change.
        """
        training = self.model.training
        self.model.eval()
        images = self.images.detach().to(next(self.model.parameters()).dtype).requires_grad_()
        with torch.enable_grad():
            loss = self.loss(self.model(images).out, self.targets).sum()
            (gradient,) = torch.autograd.grad(loss, images)
        self.model.train(training)
        self.num_saliency_images += len(images)
        return gradient.pow(2).mean(1).sqrt()
