"""Label smoothing: spread a part of every label over all classes; a control for soft labels.

Paper    Szegedy et al., Rethinking the Inception Architecture for Computer Vision, CVPR 2016,
         arXiv:1512.00567, §7
Source   pytorch/pytorch, torch.nn.CrossEntropyLoss(label_smoothing=...)
Differs  nothing known. The recipe field label_smoothing does the same for all methods; this is a
         row of its own, which shows what a soft label does without mixed pixels
"""

from torch import Tensor

from mixbench.contract import (
    Method,
    Output,
    Sources,
    Split,
    Step,
    Task,
    check_single_label,
)
from mixbench.contract.step import MixedTargetLoss
from mixbench.declare import Fraction
from mixbench.errors import UsageError


class LabelSmoothing(Method):
    """Return every image unchanged, and smooth its label in the loss.

    Parameters
    ----------
    smoothing
        Share of the label that is spread evenly over all classes, the true one included.
    """

    version = 1
    per_element = True

    def __init__(self, smoothing: Fraction = 0.1) -> None:
        super().__init__()
        self.smoothing = smoothing

    def check(self, task: Task, held_out: Split | None) -> None:  # noqa: ARG002  # the contract
        """Check that every image of the task has one class."""
        check_single_label(task, "label_smoothing")

    def mix(self, x: Tensor, step: Step) -> tuple[Tensor, Sources]:  # noqa: ARG002  # the contract
        """Return the batch unchanged."""
        return x, Sources.unmixed(x)

    def loss(self, output: Output, sources: Sources, step: Step) -> Tensor:
        """Return the cross-entropy with the smoothed labels.

        Raises
        ------
        UsageError
            If the recipe has another loss.
        """
        if isinstance(step.loss, MixedTargetLoss):
            raise UsageError(
                "label_smoothing needs the cross-entropy: leave out label_smoothing and bce_loss "
                "of the recipe."
            )
        own = step.loss(output.out, step.targets[sources.index[:, 0]]).mean()
        even = -output.out.log_softmax(1).mean()
        return (1 - self.smoothing) * own + self.smoothing * even
