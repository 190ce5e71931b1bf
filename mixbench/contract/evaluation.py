"""The interface of tasks that train nothing but evaluate the trained models of another task."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self

from torch import Tensor, nn

from mixbench.contract.backbone import Backbone
from mixbench.contract.task import Part, Split, Task, check_paths
from mixbench.declare import Synthetic
from mixbench.declare.facts import OF_THE_BASE_TASK, ParameterValue
from mixbench.errors import UsageError


class Evaluation(Task):
    """A task that evaluates models trained on another task, its base task.

    The evaluation inherits from its base task what it does not declare itself, for instance data
    and models. It reads only the test split and scores only the last epoch, because an evaluation
    may cost more than an epoch.

    Parameters
    ----------
    weights
        Weights of the evaluated model: ``pretrained`` for the final weights of the base task's
        training with the same method and seed, ``timm`` or ``timm:TAG`` for the weights that timm
        publishes, or the path of a file.

    Attributes
    ----------
    evaluates
        Name of the base task.
    base_task
        Base task, constructed with its parameters.
    """

    evaluates: ClassVar[str]
    base_task: Task

    def __init__(self, weights: str) -> None:
        self.weights = weights

    @classmethod
    def of(cls, base_task: Task, parameters: Mapping[str, ParameterValue]) -> Self:
        """Return an evaluation of the models of `base_task`."""
        task = cls.__new__(cls)
        task.inherit(base_task)
        task.__init__(**parameters)  # type: ignore[misc]  # __init__ may already use base_task
        return task

    @property
    def test_size(self) -> tuple[int, int]:
        """Height and width of the test images: those of the base task."""
        return self.base_task.test_size

    def inherit(self, base_task: Task) -> None:
        """Copy the attributes that this task does not declare itself from the base task."""
        self.base_task = base_task
        self.num_classes, self.image_size = base_task.num_classes, base_task.image_size
        for name in OF_THE_BASE_TASK:
            if not any(name in vars(one) for one in type(self).__mro__ if one is not Task):
                setattr(self, name, getattr(base_task, name))

    def start(self, model: Backbone, trained: Mapping[str, Backbone]) -> None:
        """Load the weights that `weights` names into a model, including its classifier.

        It is called instead of taking the model of the base task's training. A task must implement
        it to support weights other than ``pretrained``.

        Raises
        ------
        UsageError
            If the task does not implement it.
        """
        raise UsageError(
            f"{type(self).__name__} cannot load the weights {self.weights!r}: use "
            "weights=pretrained, or implement `start` in the task."
        )

    def load(self, part: Part, folder: Path, seed: int) -> Split:
        """Read one split of the data with the base task."""
        return self.base_task.load(part, folder, seed)

    def check_data(self, folder: Path) -> None:
        """Check the files of the test split, the only one that is read."""
        check_paths({"test": getattr(self.load("test", folder, 0), "files", ())})

    def synthesize(self, folder: Path, amount: Synthetic) -> None:
        """Write generated data with the base task."""
        self.base_task.synthesize(folder, amount)

    def class_names(self, folder: Path) -> Sequence[str]:
        """Return the names of the classes in the order of their indices."""
        return self.base_task.class_names(folder)

    def build(self, model: str) -> Backbone:
        """Return a freshly initialised model of the base task."""
        return self.base_task.build(model)

    def new_classifier(self, feature_dim: int) -> nn.Module:
        """Return a new classifier for pooled features."""
        return self.base_task.new_classifier(feature_dim)

    def loss(self, out: Tensor, targets: Tensor) -> Tensor:
        """Return the unreduced loss of each item, with shape (B,)."""
        return self.base_task.loss(out, targets)
