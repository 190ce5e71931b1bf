"""What a method sees in one training step, and what it answers."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from mixbench.contract.backbone import Backbone
from mixbench.contract.task import Split, Task
from mixbench.errors import MixbenchError


class Sources(NamedTuple):
    """Of which batch items, in which proportions, every mixed item is made.

    One type says pairs (K=2), untouched items (K=1), k-way mixes and grids (K = cells).

    Attributes
    ----------
    index : (B, K) int64
        Positions in the batch.
    weight : (B, K) float32
        Non-negative; rows sum to 1.
    """

    index: Tensor  # type: ignore[assignment]  # shadows tuple.index, which has no use here
    weight: Tensor

    def rows(self, rows: slice) -> "Sources":
        """Return the sources of some rows of the mixed batch."""
        return Sources(self.index[rows], self.weight[rows])

    @classmethod
    def alone(cls, x: Tensor) -> "Sources":
        """Return the sources of a batch that was not mixed."""
        own = torch.arange(len(x), device=x.device)[:, None]
        return cls(own, torch.ones(own.shape, device=x.device))

    @classmethod
    def pair(cls, partner: Tensor, lam: Tensor | float) -> "Sources":
        """Return the sources of a batch mixed two by two.

        Parameters
        ----------
        partner : (B,) int64
            The other item of every mix.
        lam : (B,) or a number, in [0, 1]
            The share of the own item.
        """
        own = torch.arange(len(partner), device=partner.device)
        share = torch.as_tensor(lam, dtype=torch.float32, device=partner.device).expand(len(own))
        return cls(torch.stack([own, partner], 1), torch.stack([share, 1 - share], 1))


class Step:
    """What a method may look at in one training step.

    Attributes
    ----------
    images : (B, C, H, W)
        The unmixed batch. `draw` appends to it.
    targets : (B, ...)
        Opaque: class indices, multi-hot vectors, captions. Grows with `images`.
    rng
        The method's only source of randomness, on the CPU.
    num_saliency_images
        Images that the model was run on, and differentiated by, to find where they are salient.
    site
        Where the mixing happens in this step: ``"input"`` or ``"block1"``, ``"block2"``, ...

    Parameters
    ----------
    overwritable
        Whether nothing but the method reads the batch, as in training.
    """

    def __init__(  # noqa: PLR0913  # all that a step consists of
        self,
        images: Tensor,
        targets: Tensor,
        *,
        rng: torch.Generator,
        task: Task,
        model: Backbone,
        split: Split | None = None,
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

    def loss(self, out: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of every item, (B,): the task's, unless the model has its own."""
        own: Callable[[Tensor, Tensor], Tensor] = getattr(self.model, "loss", self.task.loss)
        return own(out, targets)

    def may_overwrite(self, x: Tensor) -> bool:
        """Tell whether `x` may be overwritten: it is the batch, which nothing else reads."""
        return self._overwritable and x is self.images

    def draw(self, classes: Tensor) -> Tensor:
        """Append one fresh, augmented item of every given class to the batch.

        Parameters
        ----------
        classes : (M,) int64

        Returns
        -------
        positions : (M,) int64
            Where the new items stand in `images` and `targets`.

        Raises
        ------
        MixbenchError
            If the task has no classes, or one of them has no item.
        """
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

    def saliency(self) -> Tensor:
        """Return the norm of the loss's gradient at every pixel, (B, H, W); changes nothing."""
        training = self.model.training
        self.model.eval()
        images = self.images.detach().to(next(self.model.parameters()).dtype).requires_grad_()
        with torch.enable_grad():
            loss = self.loss(self.model(images).out, self.targets).sum()
            (gradient,) = torch.autograd.grad(loss, images)
        self.model.train(training)
        self.num_saliency_images += len(images)
        return gradient.pow(2).mean(1).sqrt()
