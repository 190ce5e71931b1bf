"""What a method or task file says of itself, as frozen data.

These declarations are read from the file without running it, so that listing, planning and
reporting need neither torch nor the file's own imports. This package therefore imports none of it.
"""

from mixbench.declare.alike import (
    COCO_2014_ARCHIVES,
    CUB,
    FINE_TUNING,
    MEAN_AVERAGE_PRECISION,
    MULTI_LABEL_FINE_TUNING,
    SMALL_NETS,
    TOP1,
    TOP1_AND_TOP5,
    VOC_2007,
    pretrained_on,
)
from mixbench.declare.attacks import EPSILONS, EPSILONS_ASCENDING, under_attack
from mixbench.declare.facts import (
    BASELINE,
    Archive,
    Count,
    CountOrZero,
    Data,
    Epsilons,
    File,
    Fraction,
    Metric,
    Need,
    NonNegative,
    Positive,
    Recipe,
    Reference,
    SearchGrid,
    Synthetic,
    Weights,
    table_row,
)

__all__ = [
    "BASELINE",
    "COCO_2014_ARCHIVES",
    "CUB",
    "EPSILONS",
    "EPSILONS_ASCENDING",
    "FINE_TUNING",
    "MEAN_AVERAGE_PRECISION",
    "MULTI_LABEL_FINE_TUNING",
    "SMALL_NETS",
    "TOP1",
    "TOP1_AND_TOP5",
    "VOC_2007",
    "Archive",
    "Count",
    "CountOrZero",
    "Data",
    "Epsilons",
    "File",
    "Fraction",
    "Metric",
    "Need",
    "NonNegative",
    "Positive",
    "Recipe",
    "Reference",
    "SearchGrid",
    "Synthetic",
    "Weights",
    "pretrained_on",
    "table_row",
    "under_attack",
]
