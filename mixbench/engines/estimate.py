"""What stages will cost, by what stages of the same kind, task and model have cost in the store."""

from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from statistics import median
from typing import NamedTuple

from mixbench.errors import Damaged
from mixbench.storage.spec import Stage
from mixbench.storage.store import Store


class Estimate(NamedTuple):
    """What some stages will cost together.

    Attributes
    ----------
    wall_s, gpu_s : seconds
        Of those stages of which something is known.
    stages, unknown
        How many there are, and of how many nothing is known.
    """

    wall_s: float
    gpu_s: float
    stages: int
    unknown: int


def estimate(stages: Iterable[Stage], store: Store) -> Estimate:
    """Return what stages will cost; trainings cost by their epochs."""
    known: dict[tuple[str, ...], list[tuple[float, float]]] = defaultdict(list)
    for key in store.finished_keys():
        with suppress(Damaged):
            manifest = store.manifest(key)
            stage, cost = manifest.spec.stage, manifest.cost
            size = max(stage.num_epochs, 1)
            known[_similar(stage)].append((cost.wall_s / size, cost.gpu_s / size))
    wall_s = gpu_s = 0.0
    number = unknown = 0
    for stage in stages:
        number += 1
        costs = known.get(_similar(stage))
        if costs is None:
            unknown += 1
            continue
        size = max(stage.num_epochs, 1)
        wall_s += size * median(wall for wall, _ in costs)
        gpu_s += size * median(gpu for _, gpu in costs)
    return Estimate(wall_s, gpu_s, number, unknown)


def _similar(stage: Stage) -> tuple[str, ...]:
    """Return what stages must have in common for their costs to be comparable."""
    identity = stage.identity
    return stage.kind, identity.task.name, identity.run.model if identity.run else ""
