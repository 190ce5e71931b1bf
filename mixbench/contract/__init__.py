"""The interfaces of mixing methods and tasks; method and task files import them from here.

Shapes use these axes throughout: batch (B), channel (C), height (H), width (W), class (K) and, in
`Sources`, the sources of a mixed item (also K). Images have the shape (B, C, H, W).
"""

from mixbench.contract.backbone import Backbone, Output
from mixbench.contract.evaluation import Evaluation
from mixbench.contract.method import (
    SINGLE,
    Method,
    Preparation,
    Processes,
    Trained,
    attach,
    mixed_loss,
)
from mixbench.contract.step import Draws, Loss, MixedTargetLoss, Mixing, ReadAhead, Sources, Step
from mixbench.contract.task import (
    PARTS,
    ClassIndex,
    Encode,
    Part,
    Predictions,
    Score,
    Split,
    Task,
    check_paths,
)

__all__ = [
    "PARTS",
    "SINGLE",
    "Backbone",
    "ClassIndex",
    "Draws",
    "Encode",
    "Evaluation",
    "Loss",
    "Method",
    "MixedTargetLoss",
    "Mixing",
    "Output",
    "Part",
    "Predictions",
    "Preparation",
    "Processes",
    "ReadAhead",
    "Score",
    "Sources",
    "Split",
    "Step",
    "Task",
    "Trained",
    "attach",
    "check_paths",
    "mixed_loss",
]
