"""What a mixing method and a task owe: the one place that their files import it from.

Axes, everywhere: batch (B), channel (C), height (H), width (W), class (K) and, in `Sources`,
the parts that a mixed item is made of (K as well). Images are (B, C, H, W).
"""

from mixbench.contract.backbone import Backbone, Output
from mixbench.contract.evaluation import Evaluation
from mixbench.contract.method import Method, Preparation, Trained, mixed_loss
from mixbench.contract.step import Sources, Step
from mixbench.contract.task import ClassIndex, Part, Predictions, Score, Split, Task

__all__ = [
    "Backbone",
    "ClassIndex",
    "Evaluation",
    "Method",
    "Output",
    "Part",
    "Predictions",
    "Preparation",
    "Score",
    "Sources",
    "Split",
    "Step",
    "Task",
    "Trained",
    "mixed_loss",
]
