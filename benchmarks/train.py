"""What the harness adds to a training step, against a plain loop written by hand.

    python -m benchmarks.train            (about two minutes)

The same net, batches, optimiser and schedule: once as a run trains, with its streams, method
contract, checks, progress and checkpoints; once as one writes it in a script. Steps alternate
within one process, and the final weights must be equal bit by bit. One thread. Writes
benchmarks/train.json.
"""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch.nn import functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR

from benchmarks.measuring import publish, settle
from mixbench.contract.loading import load_method, load_task
from mixbench.declare import Synthetic
from mixbench.registry.units import find
from mixbench.streams import generator, stream_seed
from mixbench.train.checkpoints import DiskJournal, State
from mixbench.train.loop import train
from mixbench.train.setup import Setup

STEPS_PER_EPOCH, EPOCHS, WARM_UP = 36, 3, 10
CHECKPOINT_EVERY = 200


class Plain:
    """The loop by hand, a step at a time."""

    def __init__(self, setup: Setup) -> None:
        recipe = setup.recipe
        with torch.random.fork_rng():
            torch.manual_seed(stream_seed(setup.seed, "init"))
            self.model = setup.task.build(setup.model).train()
        self.split = setup.task.load("train", setup.folder, setup.seed)
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), lr=recipe.lr, momentum=recipe.momentum, nesterov=True,
            weight_decay=recipe.weight_decay,
        )  # fmt: skip
        self.schedule = CosineAnnealingLR(self.optimizer, EPOCHS * STEPS_PER_EPOCH)
        self.size = recipe.batch_size

    def step(self, number: int) -> None:
        """Train on one batch."""
        epoch, position = divmod(number, STEPS_PER_EPOCH)
        if position == 0:
            self.order = torch.randperm(len(self.split), generator=generator(0, "order", epoch))
        index = self.order[position * self.size : (position + 1) * self.size]
        images = self.split.read(index, generator(0, "augment", number))
        loss = F.cross_entropy(self.model(images).out, self.split.targets[index])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.step()


class Alternating(DiskJournal):
    """A run's journal, which takes a plain step after each of the run's."""

    def __init__(self, work: Path, plain: Plain) -> None:
        super().__init__(work, CHECKPOINT_EVERY, lambda _: None)
        self.plain = plain
        self.ours: list[float] = []
        self.theirs: list[float] = []
        self.since = perf_counter()

    def after_step(self, step: int, num_steps: int, state: Callable[[], State]) -> None:
        """Note the time of the run's step, then that of a plain one."""
        super().after_step(step, num_steps, state)
        middle = perf_counter()
        self.plain.step(step - 1)
        end = perf_counter()
        self.ours.append(middle - self.since)
        self.theirs.append(end - middle)
        self.since = perf_counter()

    def end_epoch(
        self, row: Mapping[str, float], weights: Callable[[], State], names: list[str]
    ) -> None:
        """Leave validation and what it keeps out of the time of the step."""
        super().end_epoch(row, weights, names)
        self.since = perf_counter()


def compare(model: str, folder: Path) -> dict[str, Any]:
    """Train a model both ways."""
    card = find("task", "cifar10")
    recipe = replace(card.declared.protocols["quick"], model=model, epochs=EPOCHS)
    setup = Setup(
        load_method(find("method", "none"))(), load_task(card)(), model, recipe, 0, folder,
        torch.device("cpu"),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as work:
        journal = Alternating(Path(work), Plain(setup))
        run = train(setup, journal)
    pairs = zip(run.model.state_dict().values(), journal.plain.model.state_dict().values())  # noqa: B905
    apart = max(float((one.double() - other.double()).abs().max()) for one, other in pairs)
    last = range(STEPS_PER_EPOCH - 1, len(journal.ours), STEPS_PER_EPOCH)  # validated: not compared
    kept = [i for i in range(WARM_UP, len(journal.ours)) if i not in last]
    ours, theirs = ([times[i] for i in kept] for times in (journal.ours, journal.theirs))
    return {
        "model": model,
        "steps": len(kept),
        "largest_difference_of_weights": apart,
        "plain_ms": 1e3 * median(theirs),
        "harness_ms": 1e3 * median(ours),
        "overhead_percent_median": 100 * (median(ours) / median(theirs) - 1),
        "overhead_percent_total": 100 * (sum(ours) / sum(theirs) - 1),
    }


def main() -> None:
    """Measure, print and write."""
    settle()
    task = load_task(find("task", "cifar10"))()
    results: dict[str, Any] = {"batch": 100}
    with tempfile.TemporaryDirectory() as folder:
        task.synthesize(Path(folder), Synthetic(train=400, test=10))
        results["models"] = [compare(model, Path(folder)) for model in ("resnet8", "resnet20")]
    publish("train", results)


if __name__ == "__main__":
    main()
