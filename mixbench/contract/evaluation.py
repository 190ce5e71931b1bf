"""A task that trains nothing: it evaluates trained models of another task."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self

from torch import Tensor, nn

from mixbench.contract.backbone import Backbone
from mixbench.contract.task import Part, Split, Task
from mixbench.declare import Synthetic
from mixbench.declare.facts import OF_THE_BASE_TASK, ParameterValue


class Evaluation(Task):
    """A task that evaluates what the training of another task, its base task, ended with.

    What it does not declare itself, data and models for instance, is taken from its base task. Only
    the test part of its data is read, and only the last epoch is scored, because an evaluation may
    cost more than an epoch.

    Parameters
    ----------
    weights
        Which model is evaluated: ``pretrained``, what the base task's training with the same
        method and seed ended with; what timm publishes; or that in a file.

    Attributes
    ----------
    evaluates
        The base task's name.
    base_task
        The base task, with its parameters.
    """

    evaluates: ClassVar[str]
    base_task: Task

    def __init__(self, weights: str) -> None:
        self.weights = weights

    @classmethod
    def of(cls, base_task: Task, parameters: Mapping[str, ParameterValue]) -> Self:
        """Return an evaluation of the models of a task."""
        task = cls.__new__(cls)
        task.inherit(base_task)
        task.__init__(**parameters)  # type: ignore[misc]  # complete from its first line on
        return task

    def inherit(self, base_task: Task) -> None:
        """Take over from the base task what this task does not declare itself."""
        self.base_task = base_task
        self.num_classes, self.image_size = base_task.num_classes, base_task.image_size
        for name in OF_THE_BASE_TASK:
            if not any(name in vars(one) for one in type(self).__mro__ if one is not Task):
                setattr(self, name, getattr(base_task, name))

    def load(self, part: Part, folder: Path, seed: int) -> Split:
        """Read a part of the data."""
        return self.base_task.load(part, folder, seed)

    def synthesize(self, folder: Path, amount: Synthetic) -> None:
        """Write generated data."""
        self.base_task.synthesize(folder, amount)

    def class_names(self, folder: Path) -> Sequence[str]:
        """Return what the classes are called."""
        return self.base_task.class_names(folder)

    def build(self, model: str) -> Backbone:
        """Return a freshly initialised model."""
        return self.base_task.build(model)

    def new_classifier(self, feature_dim: int) -> nn.Module:
        """Return a fresh classifier of pooled features."""
        return self.base_task.new_classifier(feature_dim)

    def loss(self, out: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of every item, (B,), not reduced."""
        return self.base_task.loss(out, targets)
