"""The training loop, the same for every method.

Everything random is drawn from streams of (seed, purpose, step), so the state of a run is its
weights, its optimiser and its step: a run continued from a checkpoint ends bit-identical.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from mixbench.contract import Method, Split, Step, Task
from mixbench.declare import Recipe
from mixbench.errors import BadParameter, Diverged
from mixbench.stages.evaluation import predict
from mixbench.stages.mixing import mixed_step
from mixbench.streams import generator, stream_seed

State: TypeAlias = dict[str, Any]


class Journal(Protocol):
    """Where a run leaves its traces: checkpoints, weights and progress."""

    def restore(self) -> State | None:
        """Return the newest sound checkpoint, or None."""

    def after_step(self, step: int, num_steps: int, state: Callable[[], State]) -> None:
        """Keep the state if a checkpoint is due; leave if the run was told to stop."""

    def end_epoch(
        self, row: Mapping[str, float], weights: Callable[[], State], names: list[str]
    ) -> None:
        """Note an epoch's numbers and keep its weights under every given name."""


@dataclass(frozen=True)
class Setup:
    """What a run is made of.

    Attributes
    ----------
    folder
        Of the data, in the official layout.
    model
        Its name.
    """

    method: Method
    task: Task
    model: str
    recipe: Recipe
    seed: int
    folder: Path
    device: torch.device


@dataclass
class Counters:
    """The cost of a run so far, over all its attempts.

    Attributes
    ----------
    images
        Passed forward and backward.
    train_s, eval_s : seconds
        Of the loop without validation, and of validation.
    """

    images: int = 0
    train_s: float = 0.0
    eval_s: float = 0.0


@dataclass
class Run:
    """A run in progress."""

    setup: Setup
    model: nn.Module
    optimizer: torch.optim.Optimizer
    train: Split
    validation: Split
    losses: Tensor  # of the epoch's steps so far, (steps_per_epoch,)
    order: tuple[int, Tensor] = (-1, torch.empty(0))  # the epoch, and the items' order in it
    curve: list[dict[str, float]] = field(default_factory=list)
    best: int = 0
    counters: Counters = field(default_factory=Counters)
    clock: float = field(default_factory=perf_counter)

    @property
    def steps_per_epoch(self) -> int:
        """Full batches of an epoch."""
        return len(self.losses)

    @property
    def num_steps(self) -> int:
        """Of the whole run."""
        return self.setup.recipe.epochs * self.steps_per_epoch


def train(setup: Setup, journal: Journal) -> Run:
    """Train one model with one method, continuing from the journal's checkpoint if it has one.

    Raises
    ------
    Diverged
        If a loss is not finite.
    """
    run = begin(setup)
    recipe, seed = setup.recipe, setup.seed
    start = _restore(run, journal.restore())
    for step in range(start, run.num_steps):
        torch.manual_seed(stream_seed(seed, "layer", step))  # dropout and its like
        index = batch_index(run, step)
        state = Step(
            run.train.read(index, generator(seed, "augment", step)).to(setup.device),
            run.train.targets[index].to(setup.device),
            rng=generator(seed, "mix", step),
            task=setup.task,
            model=run.model,
            split=run.train,
        )
        with torch.autocast(setup.device.type, torch.bfloat16, recipe.precision == "bfloat16"):
            loss, num_images = mixed_step(setup.method, state)
        run.optimizer.zero_grad()
        loss.backward()
        for group in run.optimizer.param_groups:
            group["lr"] = learning_rate(recipe.lr, step, run.num_steps)
        run.optimizer.step()
        run.losses[step % run.steps_per_epoch] = loss.detach()
        run.counters.images += num_images
        if (step + 1) % run.steps_per_epoch == 0:
            _end_epoch(run, (step + 1) // run.steps_per_epoch, journal)
        journal.after_step(step + 1, run.num_steps, lambda: _state(run, step + 1))  # noqa: B023
    return run


def begin(setup: Setup) -> Run:
    """Return a run at its first step: fresh model, heads and optimiser, and the data.

    Raises
    ------
    BadParameter
        If the training part does not fill one batch.
    """
    recipe, seed = setup.recipe, setup.seed
    with torch.random.fork_rng():
        torch.manual_seed(stream_seed(seed, "init"))
        model = setup.task.build(setup.model).to(setup.device)
        torch.manual_seed(stream_seed(seed, "head"))
        setup.method.bind(model, setup.task)
    setup.method.to(setup.device)
    train, validation = (setup.task.load(p, setup.folder, seed) for p in ("train", "validation"))
    if len(train) < recipe.batch_size:
        raise BadParameter(
            f"batch_size must be at most the number of training images, {len(train)} "
            f"(got {recipe.batch_size})."
        )
    optimizer = torch.optim.SGD(
        [*model.parameters(), *setup.method.parameters()],
        lr=recipe.lr,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov and recipe.momentum > 0,
        weight_decay=recipe.weight_decay,
    )
    losses = torch.zeros(len(train) // recipe.batch_size, device=setup.device)
    return Run(setup, model.train(), optimizer, train, validation, losses)


def learning_rate(initial: float, step: int, num_steps: int) -> float:
    """Return the rate of a step: half a cosine from `initial` to 0."""
    return initial * (1 + math.cos(math.pi * step / num_steps)) / 2


def batch_index(run: Run, step: int) -> Tensor:
    """Return which training items make up the batch of a step, (batch_size,) int64."""
    epoch, position = divmod(step, run.steps_per_epoch)
    if run.order[0] != epoch:
        rng = generator(run.setup.seed, "order", epoch)
        run.order = epoch, torch.randperm(len(run.train), generator=rng)
    size = run.setup.recipe.batch_size
    return run.order[1][position * size : (position + 1) * size]


def _end_epoch(run: Run, epoch: int, journal: Journal) -> None:
    """Check the epoch's losses, validate, and hand over what is worth keeping."""
    bad = torch.nonzero(~run.losses.isfinite()).flatten().tolist()
    if bad:
        step = (epoch - 1) * run.steps_per_epoch + bad[0] + 1
        raise Diverged(f"The loss is {run.losses[bad[0]].item()} at step {step} (epoch {epoch}).")
    _tick(run, "train_s")
    setup = run.setup
    outputs = predict(run.model, setup.method, run.validation, setup.device)
    scores = setup.task.score(outputs, run.validation.targets)
    row = {"epoch": epoch, "loss": float(run.losses.mean())}
    row |= {f"validation_{name}": score.value for name, score in scores.items()}
    wrong = [name for name, value in row.items() if not math.isfinite(value)]
    if wrong:
        raise Diverged(f"{wrong[0]} is {row[wrong[0]]} at the end of epoch {epoch}.")
    run.curve.append(row)
    _tick(run, "eval_s")

    primary = next(metric for metric in setup.task.metrics if metric.primary)
    sign = 1 if primary.higher_is_better else -1
    values = [sign * r[f"validation_{primary.name}"] for r in run.curve]
    names = []
    if run.best == 0 or values[-1] > values[run.best - 1]:
        run.best = epoch
        names.append("best")
    if epoch > setup.recipe.epochs - setup.recipe.tail:
        names.append(f"epoch-{epoch}")
    journal.end_epoch(row, lambda: weights(run.model, setup.method), names)


def weights(model: nn.Module, method: Method) -> State:
    """Return everything that evaluation needs: the model's and the method's tensors."""
    parts = {"model": model.state_dict(), "method": method.state_dict()}
    return {f"{part}.{name}": t for part, state in parts.items() for name, t in state.items()}


def load_weights(model: nn.Module, method: Method, state: Mapping[str, Tensor]) -> None:
    """Put back what `weights` returned."""
    parts = {
        part: {n.removeprefix(part): t for n, t in state.items() if n.startswith(part)}
        for part in ("model.", "method.")
    }
    model.load_state_dict(parts["model."])
    adopt_buffers(method, parts["method."])
    method.load_state_dict(parts["method."])


def adopt_buffers(method: Method, tensors: Mapping[str, Tensor]) -> None:
    """Give the method the buffers that its preparation made and a new instance lacks."""
    for name, tensor in tensors.items():
        if "." not in name and name not in dict(method.named_parameters()):
            method.register_buffer(name, tensor.clone())


def _state(run: Run, step: int) -> State:
    """Return all that a continuation needs."""
    _tick(run, "train_s")
    return {
        "step": step,
        "weights": weights(run.model, run.setup.method),
        "optimizer": run.optimizer.state_dict(),
        "losses": run.losses,
        "curve": run.curve,
        "best": run.best,
        "counters": asdict(run.counters),
    }


def _restore(run: Run, state: State | None) -> int:
    """Put a checkpoint's state into the run; return the step at which it goes on."""
    if state is None:
        return 0
    load_weights(run.model, run.setup.method, state["weights"])
    run.optimizer.load_state_dict(state["optimizer"])
    run.losses.copy_(state["losses"])
    run.curve = state["curve"]
    run.best = state["best"]
    run.counters = Counters(**state["counters"])
    return int(state["step"])


def _tick(run: Run, counter: str) -> None:
    """Add the time since the last tick to a counter."""
    if run.setup.device.type == "cuda":
        torch.cuda.synchronize(run.setup.device)
    now = perf_counter()
    setattr(run.counters, counter, getattr(run.counters, counter) + now - run.clock)
    run.clock = now
