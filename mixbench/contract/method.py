"""What a mixing method owes, and what it works with before training."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from mixbench.contract.backbone import Backbone, Output
from mixbench.contract.step import Sources, Step
from mixbench.contract.task import Split, Task
from mixbench.declare import Need, Recipe


class Method(nn.Module):
    """A mixing method: one class in one file. Only `mix` has to be written.

    Its parameters are the typed, defaulted arguments of ``__init__``. Submodules (a patch head)
    are trained and kept with the model and are absent at test; buffers (found masks) are kept.

    Attributes
    ----------
    version
        Bumped by every change that changes results.
    sites
        Where it may mix; one is drawn uniformly in each step.
    needs
        Finished cells of the same task, model and seed that it starts from, by role.
    by_protocol
        Values that a protocol gives to parameters which the user does not set: what fits a long
        recipe may be too much for a quick one.
    exempt
        Checks of `mixbench.testing` that it fails by its nature, and why: shown by ``mixbench
        check``, never silent.
    """

    version: ClassVar[int]
    sites: ClassVar[tuple[str, ...]] = ("input",)
    needs: ClassVar[Mapping[str, Need]] = {}
    by_protocol: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    exempt: ClassVar[Mapping[str, str]] = {}

    def check(self, task: Task, held_out: Split | None) -> None:
        """Raise a `UsageError` if the parameters do not fit the task, before anything is trained.

        Only a `check` that the class itself defines is called.

        Parameters
        ----------
        held_out
            The validation part; None while generated data is not there yet.
        """

    def prepare(self, preparation: "Preparation") -> None:
        """Do what comes before training, a search for instance, and keep it in buffers.

        A class that defines it has a stage of its own, whose cost is the method's.
        """

    def bind(self, model: Backbone, task: Task) -> None:
        """Make the heads that the method adds to `model`; called once per model."""

    def mix(self, x: Tensor, step: Step) -> tuple[Tensor, Sources]:
        """Return the mixed batch and what it is made of.

        Parameters
        ----------
        x : (B, C, H, W)
            The images or, at a site inside the model, its activations. Must not be modified, unless
            the step spares it (`Step.spares`).
        """
        raise NotImplementedError

    def loss(self, output: Output, sources: Sources, step: Step) -> Tensor:
        """Return the training loss, a scalar: by default the task's loss, mixed like the images."""
        return mixed_loss(step.loss, output.out, sources, step.targets)

    def load_state_dict(
        self,
        state_dict: Mapping[str, Any],
        strict: bool = True,  # noqa: FBT001, FBT002  # torch's signature
        assign: bool = False,  # noqa: FBT001, FBT002
    ) -> Any:
        """Load parameters and buffers, with the buffers that only `prepare` registers."""
        known = {name for name, _ in self.named_parameters(recurse=False)}
        for name, tensor in state_dict.items():
            if "." not in name and name not in known:
                self.register_buffer(name, tensor.clone())
        return super().load_state_dict(state_dict, strict, assign)

    def predict(self, output: Output) -> Tensor:
        """Return the prediction at test, in the form of `Output.out`."""
        return output.out


class Trained(NamedTuple):
    """A finished cell's model with its method, in evaluation mode."""

    model: Backbone
    method: Method


@dataclass(frozen=True)
class Preparation:
    """What `Method.prepare` works with.

    Attributes
    ----------
    model
        The name of the model that will be trained.
    folder
        Of the data, in the official layout, for `Task.load`.
    trained
        The finished cells that the method declared it needs, by role.
    scratch
        A folder that survives an interruption, for a state to continue from.
    results
        A folder whose files are kept with the method's buffers.
    report
        Shows how far the work is: ``report(done, of, numbers to show)``.
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


def mixed_loss(
    loss: Callable[[Tensor, Tensor], Tensor],
    out: Tensor,
    sources: Sources,
    targets: Tensor,
    *,
    per_source: bool = False,
) -> Tensor:
    """Return the mean over the batch of a loss, weighted over the sources.

    For cross-entropy, single- or multi-label, this equals the loss of the mixed label.

    Parameters
    ----------
    loss
        Of every item, (B,): `Step.loss`.
    out : (B, ...), or (B, K, ...) if `per_source`
        One prediction for a mixed item, or one for each of its sources.
    """
    size, parts = sources.index.shape
    flat = out.flatten(0, 1) if per_source else out.repeat_interleave(parts, 0)
    losses = loss(flat, targets[sources.index.flatten()]).view(size, parts)
    return (losses * sources.weight).sum(1).mean()
