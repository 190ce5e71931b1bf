"""The interface of mixing methods, and the inputs of their preparation before training."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from mixbench.contract.backbone import AttentionKind, Backbone, Output
from mixbench.contract.step import Draws, Loss, MixedTargetLoss, Sources, Step
from mixbench.contract.task import Split, Task
from mixbench.declare import Need, Recipe
from mixbench.declare.facts import NOT_INHERITED, Parameters
from mixbench.errors import UsageError


class Method(nn.Module):
    """Base class of mixing methods: one class in one file. Only `mix` must be implemented.

    The method's parameters are the arguments of ``__init__``; each must have a type and a default.
    Submodules, for instance a patch head, are trained and saved with the model and are not used at
    test time. Buffers, for instance masks that a search found, are saved as well.

    Attributes
    ----------
    version
        Version of the method; raise it with every change that changes results.
    sites
        Sites where the method may mix; one is drawn uniformly in each step: ``input``, ``tokens``
        (the embedded patches, or the first feature map), a block of the model (``block1``, ...), or
        its ``last`` block.
    needs
        Finished cells of the same task, model and seed whose models the method uses, by role, in
        its preparation (`Preparation.trained`) or in training (`Step.teachers`).
    per_element
        Whether `mix` heeds `Step.per_element`, so that every item can have a λ of its own.
    needs_attention
        Whether the method reads `Output.attention`. Models without attention maps are refused.
    attention
        Kind of attention that it reads: ``class_token``, ``patches`` or ``rollout``.
    ema_decay
        Decay of an exponential moving average of the model that the method reads (`Step.ema`); 0
        keeps none. It is neither validated nor ranked.
    recipe_of
        Protocols whose published recipe mixes as this method does; tables say so.
    by_protocol
        By protocol, values of parameters that the user does not set; a value that suits a long
        recipe may not suit a quick one.
    added
        Parameters that the method did not have in earlier results. Keys and records leave them out
        while they have their defaults, and so stay valid.
    exempt
        By name, the checks of `mixbench.testing` that the method cannot pass by design, and the
        reason, which ``mixbench check`` prints.

    `per_element` and `recipe_of` are not inherited: another class may mix in another way.
    """

    version: ClassVar[int]
    sites: ClassVar[tuple[str, ...]] = ("input",)
    needs: ClassVar[Mapping[str, Need]] = {}
    per_element: ClassVar[bool] = False
    needs_attention: ClassVar[bool] = False
    attention: ClassVar[AttentionKind] = "class_token"
    ema_decay: ClassVar[float] = 0.0
    recipe_of: ClassVar[tuple[str, ...]] = ()
    by_protocol: ClassVar[Mapping[str, Parameters]] = {}
    added: ClassVar[tuple[str, ...]] = ()
    exempt: ClassVar[Mapping[str, str]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name in NOT_INHERITED - vars(cls).keys():
            setattr(cls, name, getattr(Method, name))

    def check(self, task: Task, held_out: Split | None) -> None:
        """Raise a `UsageError` if the parameters do not fit the task; called before training.

        It is called only if the method's class overrides it.

        Parameters
        ----------
        task
            Task on which the method will be trained.
        held_out
            Validation split; None if the data is to be generated and does not exist yet.
        """

    def prepare(self, preparation: "Preparation") -> None:
        """Compute what training needs, for instance by a search, and save it in buffers.

        If a class overrides this, it runs as a separate stage, whose cost counts as the method's.
        """

    def bind(self, model: Backbone, task: Task) -> None:
        """Create the heads that the method adds to `model`; called once per model."""

    def draws(self, size: int, rng: torch.Generator) -> Draws | None:
        """Announce which items `mix` will draw by class, so that they are read before the step.

        It must depend on `rng`, the number of items and what does not change during training, and
        `mix` must start with the same draws from `Step.rng`. By default, nothing is announced, and
        `Step.draw` reads within the step.

        Parameters
        ----------
        size
            Number of items in the batch.
        rng
            Generator with the state that `Step.rng` will have.
        """
        return None

    def mix(self, x: Tensor, step: Step) -> tuple[Tensor, Sources]:
        """Return the mixed batch and its sources.

        Parameters
        ----------
        x : (B, C, H, W)
            Images or, at a site inside the model, activations; at a block of a transformer, of the
            shape that the block returns. Do not modify `x` in place unless `Step.may_overwrite`
            returns True for it.
        step
            Training step: the unmixed batch, the model, the task and the random generator.
        """
        raise NotImplementedError

    def loss(self, output: Output, sources: Sources, step: Step) -> Tensor:
        """Return the training loss, a scalar; by default, `mixed_loss` of the step's loss."""
        return mixed_loss(step.loss, output.out, sources, step.targets)

    def load_state_dict(
        self,
        state_dict: Mapping[str, Tensor],
        strict: bool = True,  # noqa: FBT001, FBT002  # torch's signature
        assign: bool = False,  # noqa: FBT001, FBT002
    ) -> NamedTuple:
        """Load parameters and buffers, including buffers that only `prepare` registers."""
        known = {name for name, _ in self.named_parameters(recurse=False)}
        for name, tensor in state_dict.items():
            if "." not in name and name not in known:
                self.register_buffer(name, tensor.clone())
        keys: NamedTuple = super().load_state_dict(state_dict, strict, assign)
        return keys

    def predict(self, output: Output) -> Tensor:
        """Return the prediction at test time, in the form of `Output.out`."""
        return output.out


def attach(method: Method, model: Backbone, task: Task) -> None:
    """Bind a method to a model, and let the model return what the method needs.

    Raises
    ------
    UsageError
        If the model cannot.
    """
    method.bind(model, task)
    if method.needs_attention:
        model.keep_attention(method.attention)


def check_single_label(task: Task, method: str) -> None:
    """Check that every item of a task has one class; for `Method.check`.

    Raises
    ------
    UsageError
        If it has several classes or none.
    """
    if not task.num_classes:
        raise UsageError(
            f"{method} needs a task with one class per image; choose another task or method."
        )


class Trained(NamedTuple):
    """The model of a finished cell and its method, both in evaluation mode.

    Attributes
    ----------
    model
        Trained model of the cell.
    method
        Method that the model was trained with, including its trained heads and buffers.
    """

    model: Backbone
    method: Method


class Processes(Protocol):
    """The processes that compute something together, each a part of it."""

    @property
    def rank(self) -> int:
        """Number of this process, from 0."""
        ...

    @property
    def world_size(self) -> int:
        """Number of processes."""
        ...

    def sum(self, x: Tensor) -> Tensor:
        """Return the sum of a tensor over the processes."""
        ...


class _Single:
    """One process by itself."""

    rank, world_size = 0, 1

    def sum(self, x: Tensor) -> Tensor:
        return x


SINGLE: Processes = _Single()


@dataclass(frozen=True)
class Preparation:
    """The inputs of `Method.prepare`.

    Attributes
    ----------
    task
        Task on which the model will be trained.
    model
        Name of the model that will be trained.
    recipe
        Recipe with which the model will be trained.
    seed
        Seed of the cell.
    folder
        Folder of the data in the official layout, as `Task.load` expects it.
    device
        Device on which the preparation should compute.
    trained
        Models of the finished cells that the method declares in `Method.needs`, by role.
    scratch
        Folder for checkpoints of the preparation; it survives an interruption. Only the process of
        rank 0 may write to it.
    results
        Folder for files that are saved together with the method's buffers.
    report
        Callback that shows progress: ``report(done, total, values)``, where `values` maps names to
        numbers to display.
    processes
        Processes that prepare together (``--gpus-per-cell``). All of them run `Method.prepare` and
        must compute the same buffers.
    """

    task: Task
    model: str
    recipe: Recipe
    seed: int
    folder: Path
    device: torch.device
    trained: Mapping[str, Trained]
    scratch: Path
    results: Path
    report: Callable[[int, int, Mapping[str, float]], None]
    processes: Processes = SINGLE


def mixed_loss(
    loss: Loss,
    out: Tensor,
    sources: Sources,
    targets: Tensor,
    *,
    per_source: bool = False,
) -> Tensor:
    """Return the mean loss over the batch, where an item's loss is weighted over its sources.

    For single-label and multi-label cross-entropy, this equals the loss with the mixed label. A
    `MixedTargetLoss` is asked for the loss of the mixed target instead.

    Parameters
    ----------
    loss
        Function of predictions and targets that returns the loss of each item, with shape (B,);
        for instance `Step.loss`.
    out : (B, ...), or (B, K, ...) if `per_source`
        Predictions: one per mixed item, or one for each source of each mixed item.
    sources
        Sources of the mixed items, and their weights.
    targets : (B, ...)
        Targets of the unmixed batch.
    per_source
        Whether `out` has a prediction for each source.
    """
    if isinstance(loss, MixedTargetLoss) and not per_source:
        return loss.mixed(out, sources, targets).mean()
    size, parts = sources.index.shape
    flat = out.flatten(0, 1) if per_source else out.repeat_interleave(parts, 0)
    losses = loss(flat, targets[sources.index.flatten()]).view(size, parts)
    return (losses * sources.weight).sum(1).mean()
