"""A mixing method as a function of a batch, for training loops of the user's own."""

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.utils.data import default_collate, get_worker_info

from mixbench.contract import Method, Step
from mixbench.contract.loading import load_method
from mixbench.declare.facts import ParameterValue
from mixbench.errors import BadParameter, UsageError
from mixbench.loops.own_task import OwnTask, draws_of, soft
from mixbench.registry.cards import MethodCard
from mixbench.registry.parameters import parameters_of
from mixbench.registry.units import find

OWN_LOSS = frozenset({"bind", "loss", "predict", "prepare"})


class Transform:
    """Mixes batches, as the transforms of torchvision and the `mixup_fn` of timm do.

    `mixbench.transform` makes one.

    Parameters
    ----------
    name
        Name of the method, in messages.
    method
        Method that mixes images at the input, and needs neither the model nor the data set.
    num_classes
        Number of classes of the labels.
    seed
        Seed of the random draws.
    per_element
        Whether every image is mixed with a λ of its own.
    """

    def __init__(
        self, name: str, method: Method, num_classes: int, seed: int, *, per_element: bool
    ) -> None:
        self._name, self._method = name, method
        self._num_classes, self._seed, self._per_element = num_classes, seed, per_element
        self._step = 0
        self._checked: set[tuple[int, int]] = set()  # sizes of images

    @torch.no_grad()
    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mix a batch.

        Parameters
        ----------
        images : (B, C, H, W) float
            Images of the batch, which are not changed.
        labels : (B,) int64 or (B, num_classes) float
            Classes of the images, or probabilities of the classes.

        Returns
        -------
        images : (B, C, H, W)
            Mixed images.
        targets : (B, num_classes) float32
            Shares of the classes in each mixed image.

        Raises
        ------
        UsageError
            If the images or labels have another form, or do not fit the method.
        """
        self._check(images, labels)
        task = OwnTask(self._num_classes, (images.shape[-2], images.shape[-1]))
        if task.image_size not in self._checked:
            self._method.check(task, None)
            self._checked.add(task.image_size)
        model: Any = _NoModel(self._name)
        step = Step(
            images, labels, rng=self._rng(), task=task, model=model, per_element=self._per_element
        )
        mixed, sources = self._method.mix(images, step)
        shares = soft(labels, self._num_classes)[sources.index] * sources.weight[..., None]
        return mixed, shares.sum(1)

    def collate(self, items: Sequence[Any]) -> Any:
        """Collate images and labels as the DataLoader does by default, and mix the batch.

        In DataLoader workers, the random draws follow from the seed that each worker gets, and so
        from `torch.manual_seed`; `state_dict` knows nothing of them.
        """
        images, labels = default_collate([*items])
        return self(images, labels)

    def state_dict(self) -> dict[str, int]:
        """Return the number of batches that were mixed, for checkpoints."""
        return {"step": self._step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue after as many batches as a checkpoint states."""
        self._step = state["step"]

    def _rng(self) -> torch.Generator:
        """Return the generator of the next batch; every worker of a DataLoader has its own."""
        worker, number = get_worker_info(), self._step
        self._step += 1
        return draws_of(self._seed if worker is None else worker.seed, number)

    def _check(self, images: Tensor, labels: Tensor) -> None:
        """Check the form of a batch; values on a GPU are not read, as that would wait for it."""
        if images.dim() != 4 or not images.is_floating_point():
            raise UsageError(
                "images must be a float tensor of shape (B, C, H, W), as after ToDtype and "
                f"Normalize (got {images.dtype} of shape {tuple(images.shape)})."
            )
        forms = {(len(images),), (len(images), self._num_classes)}
        soft_labels = labels.dim() == 2
        if tuple(labels.shape) not in forms or labels.is_floating_point() != soft_labels:
            raise UsageError(
                f"labels must be {len(images)} class indices, or probabilities of shape "
                f"({len(images)}, {self._num_classes}) (got {labels.dtype} of shape "
                f"{tuple(labels.shape)})."
            )
        if labels.device.type == "cpu" and not soft_labels and len(labels):
            low, high = int(labels.min()), int(labels.max())
            if low < 0 or high >= self._num_classes:
                raise UsageError(
                    f"labels must be in 0..{self._num_classes - 1}, as num_classes says (got "
                    f"{low if low < 0 else high})."
                )


class _NoModel:
    """Stands for the model, which a transform does not have."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> NoReturn:
        if attribute == "loss":  # a model may have one
            raise AttributeError(attribute)
        raise UsageError(refusal(self._name, "uses the model that is trained"))


def transform(
    name: str,
    *,
    num_classes: int,
    seed: int = 0,
    per_element: bool = False,
    **parameters: ParameterValue,
) -> Transform:
    """Return a mixing method as a function of a batch.

    ::

        mix = mixbench.transform("cutmix", num_classes=100, alpha=1.0)
        images, targets = mix(images, labels)
        loss = torch.nn.functional.cross_entropy(model(images), targets)

    Called once for each step, in order, it gives the bits of `mixbench run` with the same seed.

    Parameters
    ----------
    name
        Name of a method, or the path of its file.
    num_classes
        Number of classes of the labels.
    seed
        Seed of the random draws.
    per_element
        Whether every image is mixed with a λ of its own, as with timm's mode ``elem``.
    parameters
        Parameters of the method; ``mixbench info NAME`` lists them.

    Raises
    ------
    UnknownName
        If there is no such method or parameter.
    BadParameter
        If a value does not have the parameter's type or is out of range.
    UsageError
        If the method needs the model, a loss of its own or the data set.
    """
    card = find("method", name)
    assert isinstance(card, MethodCard)
    if reason := _more_than_a_batch(card):
        raise UsageError(refusal(card.name, reason))
    check_options(card, seed, per_element=per_element)
    if num_classes < 1:
        raise BadParameter(f"num_classes must be at least 1 (got {num_classes}).")
    method = load_method(card)(**values_of(card, parameters))
    return Transform(card.name, method, num_classes, seed, per_element=per_element)


def check_options(card: MethodCard, seed: object, *, per_element: bool) -> None:
    """Check the seed, and that a method can mix every image with a λ of its own, if asked to."""
    if not isinstance(seed, Integral) or seed < 0:
        raise BadParameter(f"seed must be a whole number of at least 0 (got {seed!r}).")
    if per_element and not card.declared.per_element:
        raise BadParameter(f"per_element must be False for {card.name}, which has one λ per batch.")


def values_of(card: MethodCard, given: Mapping[str, ParameterValue]) -> dict[str, ParameterValue]:
    """Return the values of all parameters of a method, some of which are given."""
    return parameters_of(card, card.defaults, {name: str(value) for name, value in given.items()})


def _more_than_a_batch(card: MethodCard) -> str:
    """Return what a method needs besides a batch; empty if it needs nothing else."""
    if own := card.defines & OWN_LOSS:
        return f"has a `{min(own)}` of its own"
    if tuple(card.declared.sites) != ("input",):
        return "mixes inside the model"
    if card.declared.needs or card.declared.ema_decay or card.declared.needs_attention:
        return "needs trained models or attention maps"
    return "draws images of the data set" if "draws" in card.defines else ""


def refusal(name: str, reason: str) -> str:
    """Return the sentence that refuses a method as a transform."""
    return (
        f"{name} cannot be a transform of a batch, because it {reason}: use "
        f"`mixbench.MixedLoss({name!r}, model, ...)`, or another method."
    )
