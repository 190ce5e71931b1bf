"""A task that trains nothing: it evaluates trained models of another task."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from torch import Tensor, nn

from mixbench.contract.task import Part, Split, Task
from mixbench.declare import Synthetic
from mixbench.declare.facts import OF_THE_SUBJECT
from mixbench.models.weights import start_whole


class Evaluation(Task):
    """A task that evaluates what another task's training ended with, its subject's.

    What it does not say itself, data and models for instance, is as in its subject. Only the test
    part of its data is read, and only the last epoch is scored, because an evaluation may cost
    more than an epoch.

    Parameters
    ----------
    weights
        Which model is evaluated: ``pretrained``, what the subject's training with the same method
        and seed ended with; what timm publishes; or that in a file.

    Attributes
    ----------
    evaluates
        The subject's name.
    subject
        The task itself, with its parameters.
    """

    evaluates: ClassVar[str]
    subject: Task

    def __init__(self, weights: str) -> None:
        self.weights = weights

    def about(self, subject: Task) -> None:
        """Take the task whose models are evaluated, before anything else is asked."""
        self.subject = subject
        self.num_classes, self.image_size = subject.num_classes, subject.image_size
        for name in OF_THE_SUBJECT:
            if name not in vars(type(self)):
                setattr(self, name, getattr(subject, name))

    def load(self, part: Part, folder: Path, seed: int) -> Split:
        """Read a part of the data."""
        return self.subject.load(part, folder, seed)

    def synthesize(self, folder: Path, amount: Synthetic) -> None:
        """Write generated data."""
        self.subject.synthesize(folder, amount)

    def class_names(self, folder: Path) -> Sequence[str]:
        """Return what the classes are called."""
        return self.subject.class_names(folder)

    def build(self, model: str) -> nn.Module:
        """Return a freshly initialised model."""
        return self.subject.build(model)

    def new_classifier(self, feature_dim: int) -> nn.Module:
        """Return a fresh classifier of pooled features."""
        return self.subject.new_classifier(feature_dim)

    def loss(self, out: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of every item, (B,), not reduced."""
        return self.subject.loss(out, targets)

    def start(self, model: nn.Module, trained: Mapping[str, nn.Module]) -> None:  # noqa: ARG002  # nothing else is trained
        """Give a model the weights in a file or of timm's, its classifier's too."""
        start_whole(model, self.weights, f"{self.num_classes} classes of {self.evaluates}")
