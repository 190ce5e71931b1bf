"""The metrics that an evaluation stage leaves for the record of its cell: ``metrics.json``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from mixbench.declare import Metric
from mixbench.records.items import Items
from mixbench.storage.files import Typed

Point = Literal["last", "best_validation", "median_tail"]


@dataclass(frozen=True)
class ScoreFacts:
    """A metric's value; see `mixbench.contract.Score`."""

    value: float
    stderr: float | None = None
    by_class: Sequence[float | None] | None = None


@dataclass(frozen=True)
class StageMetrics:
    """Every metric of an evaluation.

    Attributes
    ----------
    n
        Test items.
    classes
        The names of the classes, in the order of `ScoreFacts.by_class`.
    declared
        What the task declares about its metrics.
    items
        The primary metric of every item after the last epoch, where it is their mean.
    metrics
        By the point of training at which they are taken, then by metric.
    """

    n: int
    classes: tuple[str, ...]
    declared: tuple[Metric, ...]
    items: Items | None
    metrics: Mapping[Point, Mapping[str, ScoreFacts]]


METRICS = Typed(StageMetrics)
