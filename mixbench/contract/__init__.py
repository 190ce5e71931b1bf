"""The interfaces of mixing methods and tasks; method and task files import them from here.

Shapes use these axes throughout: batch (B), channel (C), height (H), width (W), class (K) and, in
`Sources`, the sources of a mixed item (also K). Images have the shape (B, C, H, W).
"""

from mixbench.contract.backbone import AttentionKind, Backbone, Output
from mixbench.contract.class_maps import check_maps, class_maps, class_weights
from mixbench.contract.evaluation import Evaluation
from mixbench.contract.method import (
    SINGLE,
    Method,
    Preparation,
    Processes,
    Trained,
    attach,
    check_single_label,
    mixed_loss,
)
from mixbench.contract.step import Draws, Loss, MixedTargetLoss, Mixing, ReadAhead, Sources, Step
from mixbench.contract.task import (
    PARTS,
    ClassIndex,
    Encode,
    Normalization,
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
    "AttentionKind",
    "Backbone",
    "ClassIndex",
    "Draws",
    "Encode",
    "Evaluation",
    "Loss",
    "Method",
    "MixedTargetLoss",
    "Mixing",
    "Normalization",
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
    "check_maps",
    "check_paths",
    "check_single_label",
    "class_maps",
    "class_weights",
    "mixed_loss",
]
