"""Cost estimates for stages, from finished stages of the same kind, task and model."""

from collections import defaultdict
from collections.abc import Iterable
from statistics import median
from typing import NamedTuple

from mixbench.declare.facts import TRIAL
from mixbench.storage.spec import Stage
from mixbench.storage.store import Store


class Estimate(NamedTuple):
    """The estimated total cost of some stages.

    Attributes
    ----------
    wall_s : seconds
        Time that the stages take one after the other, without those of unknown cost.
    gpu_s : seconds
        GPU-seconds that the stages hold, without those of unknown cost.
    stages
        Number of stages.
    unknown
        Number of stages whose cost is unknown because the store has no comparable stage.
    """

    wall_s: float
    gpu_s: float
    stages: int
    unknown: int


def estimate(stages: Iterable[Stage], store: Store) -> Estimate:
    """Estimate the cost of stages by the median of comparable finished stages, per epoch."""
    known: dict[tuple[str, ...], list[tuple[float, float]]] = defaultdict(list)
    for manifest in store.manifests():
        stage, cost = manifest.spec.stage, manifest.cost
        size = max(stage.num_epochs, 1)
        known[_similar(stage)].append((cost.wall_s / size, cost.gpu_s / size))
    typical = {
        similar: tuple(map(median, zip(*costs, strict=True))) for similar, costs in known.items()
    }
    wall_s = gpu_s = 0.0
    number = unknown = 0
    for stage in stages:
        number += 1
        costs = typical.get(_similar(stage))
        if costs is None:
            unknown += 1
            continue
        size = max(stage.num_epochs, 1)
        wall_s += size * costs[0]
        gpu_s += size * costs[1]
    return Estimate(wall_s, gpu_s, number, unknown)


def _similar(stage: Stage) -> tuple[str, ...]:
    """Return the kind, task and model of a stage; stages that share them have similar costs.

    Trials have the costs of other trials that are as short.
    """
    identity, run = stage.identity, stage.identity.run
    trial = [str(getattr(run.recipe, name)) for name in TRIAL] if run else []
    return stage.kind, identity.task.name, run.model if run else "", *trial
