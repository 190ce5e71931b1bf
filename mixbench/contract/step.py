"""The inputs of a method in one training step (`Step`) and its description of a mix (`Sources`)."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from mixbench.contract.backbone import Backbone, Output
from mixbench.contract.task import Split, Task
from mixbench.errors import MixbenchError
from mixbench.kernels import beta

# A function of predictions and targets that returns the loss of each item, (B,).
Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]


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
    more : (B, ...) each
        What else `Method.loss` needs to know of each mixed item, for instance masks. A method must
        not keep that in itself: processes that train together, and recipes that divide a batch,
        compute the loss of some items only.
    """

    index: Tensor  # type: ignore[assignment]  # shadows tuple.index, which is not used here
    weight: Tensor
    more: tuple[Tensor, ...] = ()

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All tensors; ``Sources.of(*tensors)`` is the inverse."""
        return self.index, self.weight, *self.more

    @classmethod
    def of(cls, index: Tensor, weight: Tensor, *more: Tensor) -> "Sources":
        """Return the sources with these tensors."""
        return cls(index, weight, more)

    def rows(self, rows: slice | Tensor) -> "Sources":
        """Return the sources of the given rows of the mixed batch."""
        return Sources.of(*(tensor[rows] for tensor in self.tensors))

    @classmethod
    def unmixed(cls, x: Tensor) -> "Sources":
        """Return the sources of an unmixed batch: each item is its own only source."""
        own = torch.arange(len(x), device=x.device)[:, None]
        return cls(own, torch.ones(own.shape, device=x.device))

    @classmethod
    def pair(cls, partner: Tensor, lam: Tensor | float, *more: Tensor) -> "Sources":
        """Return the sources of a batch in which each item is mixed with one partner.

        Parameters
        ----------
        partner : (B,) int64
            Position in the batch of each item's partner.
        lam : (B,) or a number, in [0, 1]
            Weight of the item itself; its partner has the weight ``1 - lam``.
        more : (B, ...) each
            Value of the attribute `more`.
        """
        own = torch.arange(len(partner), device=partner.device)
        share = torch.as_tensor(lam, dtype=torch.float32, device=partner.device).expand(len(own))
        return cls(torch.stack([own, partner], 1), torch.stack([share, 1 - share], 1), more)


class MixedTargetLoss:
    """Base class of losses that depend on the mixed target of an item, not on each source's own.

    `mixed_loss` asks such a loss once for each mixed item.
    """

    def __call__(self, out: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of each unmixed item, (B,)."""
        raise NotImplementedError

    def mixed(self, out: Tensor, sources: Sources, targets: Tensor) -> Tensor:
        """Return the loss of each mixed item, (B,), from the targets of the unmixed batch."""
        raise NotImplementedError


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


class Mixing(NamedTuple):
    """How a recipe mixes in a step; the training heeds it, not the method.

    Attributes
    ----------
    mixes
        Whether the method mixes at all.
    unmixed : (B,) bool
        Items that stay unmixed although the method mixes the batch; None for none.
    half
        Whether only the first half of the mixed batch is trained on.
    """

    mixes: bool = True
    unmixed: Tensor | None = None
    half: bool = False


ALL_MIXED = Mixing()


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
        Number of images for which `saliency`, `predict` or `ask` ran a model in this step.
    site
        Site at which this step mixes: ``"input"``, ``"tokens"``, ``"block1"``, ``"block2"``, ...,
        ``"last"``.
    loss
        Function of predictions and targets that returns the loss of each item, (B,): the task's
        loss, or that of the recipe or of the model, which replaces it.
    per_element
        Whether every item is to be mixed with a λ of its own; only for methods that declare it.
    mixing
        How the recipe mixes in this step.
    teachers
        Trained models by role: those of the finished cells that the method declares in
        `Method.needs`.
    ema
        Exponential moving average of the model, in evaluation mode, if the method declares
        `Method.ema_decay`.

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
    loss
        Loss that the recipe sets; None for that of the model, or of the task.
    per_element
        Value of the attribute `per_element`.
    mixing
        Value of the attribute `mixing`.
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
        loss: Loss | None = None,
        per_element: bool = False,
        mixing: Mixing = ALL_MIXED,
    ) -> None:
        self.images = images
        self.targets = targets
        self.rng = rng
        self.task = task
        self.model = model
        self.site = "input"
        own: Loss = getattr(model, "loss", task.loss)
        self.loss = own if loss is None else loss
        self.per_element = per_element
        self.mixing = mixing
        self.teachers: Mapping[str, Backbone] = {}
        self.ema: Backbone | None = None
        self.num_saliency_images = 0
        self._overwritable = overwritable
        self._split = split
        self._read_ahead = read_ahead

    def beta(self, alpha: float, size: int) -> Tensor:
        """Draw λ ~ Beta(α, α): one for the batch, (1,), or one for each of `size` items, (size,).

        The numbers are float64 on the CPU.
        """
        return beta(alpha, self.rng, size if self.per_element else 1)

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

    def predict(self) -> Output:
        """Return the model's output for the unmixed batch, in evaluation mode, without gradients.

        The mode of the model, and of each of its modules, does not change.
        """
        with _evaluating(self.model):
            return self.ask(self.model)

    def ask(self, teacher: Backbone) -> Output:
        """Return a teacher's output for the unmixed batch, without gradients."""
        self.num_saliency_images += len(self.images)
        with torch.no_grad():
            output: Output = teacher(self.images.to(next(teacher.parameters()).dtype))
        return output

    def saliency(self) -> Tensor:
        """Return the norm of the loss's gradient at each pixel, (B, H, W).

        The model runs in evaluation mode; its mode and its parameters' gradients do not change.
        """
        images = self.images.detach().to(next(self.model.parameters()).dtype).requires_grad_()
        with _evaluating(self.model), torch.enable_grad():
            loss = self.loss(self.model(images).out, self.targets).sum()
            (gradient,) = torch.autograd.grad(loss, images)
        self.num_saliency_images += len(images)
        return gradient.pow(2).mean(1).sqrt()


@contextmanager
def _evaluating(model: Backbone) -> Iterator[None]:
    """Put a model in evaluation mode, and each of its modules in its own mode at the exit."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
