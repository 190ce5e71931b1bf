"""A mixing method as a loss, for training loops of the user's own and methods of all kinds."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mixbench.contract import (
    Backbone,
    ClassIndex,
    Method,
    Normalization,
    Preparation,
    Split,
    Step,
    attach,
)
from mixbench.contract.loading import load_method
from mixbench.declare import Recipe
from mixbench.declare.facts import ParameterValue
from mixbench.errors import UsageError
from mixbench.loops.own_task import OwnTask, draws_of
from mixbench.loops.transform import check_options, values_of
from mixbench.registry.cards import MethodCard
from mixbench.registry.units import find
from mixbench.train.mixing import mixed_step
from mixbench.vision.models.build import sized
from mixbench.vision.models.own_net import OwnNet
from mixbench.vision.models.timm_models import TimmNet

Criterion = Callable[[Tensor, Tensor], Tensor]


class MixedLoss(nn.Module):
    """Mixes a batch, passes it through the model and returns the loss.

    ::

        mixed = mixbench.MixedLoss("guided_patchmix", model, dataset=train, search="search.json")
        optimizer = torch.optim.SGD([*model.parameters(), *mixed.parameters()], lr=0.1)
        for images, labels in loader:
            loss = mixed(images, labels)

    It works with all methods: with those that have heads of their own, mix inside the model, read
    its gradients or draw images by class. In evaluation mode, nothing is mixed. Called once for
    each step, in order, it gives the bits of `mixbench run` with the same seed.

    Its parameters and buffers are those of the method: heads, and what a search found. Optimize
    and save them with the model. They are not used at test time.

    Parameters
    ----------
    name
        Name of a method, or the path of its file.
    model
        Network that returns logits, (B, classes); it may be compiled or wrapped in
        DistributedDataParallel.
    loss
        Function of logits and class indices that returns the loss of each image, (B,), or a loss of
        `torch.nn`; by default the cross-entropy.
    dataset
        Training data set with images of one size and class indices; for methods that draw images by
        class. Without `targets` of its own, give them as `targets`.
    targets
        Class index of each item of `dataset`.
    search
        Path of the search.json of an earlier search, for `guided_patchmix`.
    image_shape
        Channels, height and width of the images, as in (3, 224, 224); by default those of the first
        image of `dataset`.
    normalization
        Mean and standard deviation of each channel, with which the images are normalised, as of
        torchvision's ``Normalize``; for methods that work on pixels, as `augmix`.
    seed
        Seed of the random draws.
    per_element
        Whether every image is mixed with a λ of its own.
    blocks
        Names of the modules of `model` at which a method may mix; found by default.
    features
        Name of the module of `model` that returns the last feature map; found by default.
    parameters
        Parameters of the method; ``mixbench info NAME`` lists them.

    Raises
    ------
    UnknownName
        If there is no such method or parameter.
    UsageError
        If the model, the data set or the method do not fit each other.
    """

    def __init__(  # noqa: PLR0913  # what a loop may know of its model and data
        self,
        name: str,
        model: nn.Module,
        loss: Criterion | None = None,
        *,
        dataset: Any = None,
        targets: Sequence[int] | Tensor | None = None,
        search: str | Path | None = None,
        image_shape: tuple[int, int, int] | None = None,
        normalization: tuple[Sequence[float], Sequence[float]] | None = None,
        seed: int = 0,
        per_element: bool = False,
        blocks: Sequence[str] = (),
        features: str = "",
        **parameters: ParameterValue,
    ) -> None:
        super().__init__()
        card = find("method", name)
        assert isinstance(card, MethodCard)
        check_options(card, seed, per_element=per_element)
        if search is not None:
            parameters |= {"search": "fixed", "file": str(search)}
        values = values_of(card, parameters)
        _check_given(card, values, dataset)
        self.method = load_method(card)(**values)
        if hasattr(model, "_orig_mod") and card.declared.sites != ("input",):
            raise UsageError(
                f"{card.name} mixes inside the model by hooks, which a compiled model may ignore: "
                "give the model that is not compiled."
            )
        shape = _shape(image_shape, dataset)
        training = {module: module.training for module in model.modules()}
        own = _backbone(model, shape, blocks, features)
        self._model = [own]  # in a list, the user's model is not a part of this one
        classes = own.num_classes if isinstance(own, OwnNet) else _width(own, shape)
        for module, mode in training.items():
            module.training = mode
        scale = None if normalization is None else Normalization(*normalization)
        self._task = OwnTask(classes, shape[1:], _unreduced(loss), scale)
        self._split = None if dataset is None else OwnSplit(dataset, targets, classes)
        self._seed, self._per_element, self._step = seed, per_element, 0
        self.method.check(self._task, None)
        attach(self.method, own, self._task)
        if "prepare" in card.defines:
            self._prepare(card)
        self.to(next(own.parameters()).device)
        if isinstance(model, DistributedDataParallel):
            _synchronise(self.method)

    def _prepare(self, card: MethodCard) -> None:
        """Let the method read or draw what it needs before training."""
        with tempfile.TemporaryDirectory() as scratch:
            self.method.prepare(
                Preparation(
                    task=self._task,
                    model=card.name,
                    recipe=Recipe(model=card.name, epochs=1),
                    seed=self._seed,
                    folder=Path(scratch),
                    device=torch.device("cpu"),
                    trained={},
                    scratch=Path(scratch),
                    results=Path(scratch),
                    report=lambda *_: None,
                )
            )

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of a batch, a scalar, mixed in training mode.

        Parameters
        ----------
        images : (B, C, H, W) float
            Images of the batch.
        labels : (B,) int64
            Classes of the images.
        """
        (model,) = self._model
        if not self.training:
            return self._task.loss(model(images).out, labels).mean()
        step = Step(
            images,
            labels,
            rng=draws_of(self._seed, self._step),
            task=self._task,
            model=model,
            split=self._split,
            per_element=self._per_element,
        )
        self._step += 1
        return mixed_step(self.method, step).loss

    def predict(self, images: Tensor) -> Tensor:
        """Return the method's prediction at test time, (B, classes)."""
        (model,) = self._model
        return self.method.predict(model(images))

    def get_extra_state(self) -> dict[str, int]:
        """Return the number of steps, for `state_dict`."""
        return {"step": self._step}

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Continue after as many steps as a checkpoint states."""
        self._step = state["step"]


def _backbone(
    model: nn.Module, shape: tuple[int, int, int], blocks: Sequence[str], features: str
) -> Backbone:
    """Return the user's model as a backbone; timm's have maps and attention of their own."""
    if isinstance(model, Backbone):
        return model
    if blocks or features or not hasattr(model, "forward_intermediates"):
        return OwnNet(model, shape, blocks, features)
    size = shape[1], shape[2]
    net = TimmNet(lambda: model, type(model).__name__).measured(shape[0], size)
    return sized(net, shape[0], size)


class OwnSplit(Split):
    """The user's data set, of which methods draw images by class.

    Parameters
    ----------
    dataset
        Data set of images, float (C, H, W), of one size.
    targets
        Class index of each item; by default the attribute `targets` of the data set.
    classes
        Number of classes.

    Raises
    ------
    UsageError
        If the class indices are unknown, or not in range.
    """

    def __init__(self, dataset: Any, targets: Sequence[int] | Tensor | None, classes: int) -> None:
        found = getattr(dataset, "targets", None) if targets is None else targets
        if found is None or len(found) != len(dataset):
            raise UsageError(
                "The data set must have `targets`, the class index of each item; give them as "
                f"MixedLoss(..., targets=...) (got {'none' if found is None else len(found)} for "
                f"{len(dataset)} items)."
            )
        self._dataset = dataset
        self.targets = torch.as_tensor(found, dtype=torch.int64)
        if len(self.targets) and int(self.targets.max()) >= classes:
            raise UsageError(
                f"targets must be in 0..{classes - 1}, the outputs of the model (got "
                f"{int(self.targets.max())})."
            )
        self.by_class = ClassIndex(self.targets, classes)

    def __len__(self) -> int:
        return len(self.targets)

    def to(self, device: torch.device) -> "OwnSplit":  # noqa: ARG002  # a step moves what it reads
        """Return the split itself."""
        return self

    def read(self, index: Tensor, rng: torch.Generator | None) -> Tensor:  # noqa: ARG002  # its own
        """Return images as the data set transforms them, (B, C, H, W)."""
        return torch.stack([torch.as_tensor(self._dataset[i][0]) for i in index.tolist()])


def _check_given(card: MethodCard, values: Mapping[str, ParameterValue], dataset: Any) -> None:
    """Check that everything is given that the method needs."""
    if "draws" in card.defines and dataset is None:
        raise UsageError(
            f"{card.name} draws images by class: give the training data set, as in "
            f"MixedLoss({card.name!r}, model, dataset=train)."
        )
    needs = card.declared.needs.values()
    asks = any(all(values[n] in asked for n, asked in need.when.items()) for need in needs)
    if asks and "prepare" not in card.defines:
        raise UsageError(f"{card.name} asks a trained model in every step: use `mixbench run`.")
    if asks:
        raise UsageError(
            f"{card.name} starts from a trained model, which `mixbench run` provides: run it there "
            f"and give what its search found, as in MixedLoss({card.name!r}, model, "
            "search='search.json')."
        )
    if card.declared.ema_decay:
        raise UsageError(f"{card.name} reads an average of the model: use `mixbench run`.")


def _shape(given: tuple[int, int, int] | None, dataset: Any) -> tuple[int, int, int]:
    """Return channels, height and width of the images."""
    if given is not None:
        return given
    if dataset is None:
        raise UsageError("image_shape must be given without a data set, as in (3, 224, 224).")
    first = dataset[0][0]
    if not isinstance(first, Tensor) or first.dim() != 3:
        raise UsageError(
            "The data set must return float tensors of shape (C, H, W): add a transform to tensors "
            f"(got {type(first).__name__})."
        )
    channels, height, width = first.shape
    return channels, height, width


@torch.no_grad()
def _width(model: Backbone, shape: tuple[int, int, int]) -> int:
    """Return the number of outputs of a backbone of mixbench."""
    training = model.training
    out = model.eval()(torch.zeros(1, *shape, device=next(model.parameters()).device)).out
    model.train(training)
    return int(out.shape[1])


def _synchronise(method: Method) -> None:
    """Give the heads of all processes the same values, and average their gradients."""
    size = dist.get_world_size()

    def average(parameter: Tensor) -> None:
        assert parameter.grad is not None
        dist.all_reduce(parameter.grad.div_(size))

    for tensor in method.state_dict().values():
        dist.broadcast(tensor, 0)
    for parameter in method.parameters():
        parameter.register_post_accumulate_grad_hook(average)


def _unreduced(loss: Criterion | None) -> Criterion | None:
    """Return a loss of each image, also for a loss of torch.nn that averages them."""
    if loss is None:
        return None
    each: Any = loss
    if isinstance(loss, nn.Module) and hasattr(loss, "reduction"):
        each = copy(loss)
        each.reduction = "none"

    def of_each(out: Tensor, targets: Tensor) -> Tensor:
        losses: Tensor = each(out, targets)
        if losses.shape != (len(out),):
            raise UsageError(
                f"loss must return the loss of each image, ({len(out)},): do not average them "
                f"(got a tensor of shape {tuple(losses.shape)})."
            )
        return losses

    return of_each
