"""Content of ``metrics.json``: the metrics that an evaluation stage computed for its cell."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from mixbench.declare import Metric
from mixbench.records.items import Items
from mixbench.storage.files import Typed

Point = Literal["last", "best_validation", "median_tail"]


@dataclass(frozen=True)
class ScoreFacts:
    """The value of a metric; see `mixbench.contract.Score`."""

    value: float
    stderr: float | None = None
    by_class: Sequence[float | None] | None = None


@dataclass(frozen=True)
class StageMetrics:
    """All metrics of an evaluation.

    Attributes
    ----------
    n
        Number of test items.
    classes
        Names of the classes, in the order of `ScoreFacts.by_class`.
    declared
        The metrics that the task declares.
    items
        Primary metric of each item after the last epoch, if the metric is the mean over items.
    metrics
        Values by point of training, then by name of the metric.
    normalization
        Mean and standard deviation by channel with which the initial weights were trained, if they
        are timm's and differ from those of the task.
    held_out
        Fraction of the official training images that the ranked model was not trained on; None if
        no stage trained it.
    """

    n: int
    classes: tuple[str, ...]
    declared: tuple[Metric, ...]
    items: Items | None
    metrics: Mapping[Point, Mapping[str, ScoreFacts]]
    normalization: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    held_out: float | None = None


METRICS = Typed(StageMetrics)
