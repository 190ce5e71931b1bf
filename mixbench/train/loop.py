"""The training loop, the same for every method.

All random numbers come from streams of (seed, purpose, step). The state of a run is therefore its
weights, its optimizer and its step, and a run resumed from a checkpoint ends with bit-identical
weights.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict
from time import perf_counter
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from mixbench.contract import Mixing, ReadAhead, Step
from mixbench.errors import Diverged
from mixbench.streams import generator, stream_seed
from mixbench.train.evaluation import batch_size, predict
from mixbench.train.loading import Request, batches
from mixbench.train.mixing import mixing_of
from mixbench.train.schedule import learning_rate
from mixbench.train.setup import Counters, Run, Setup, State, begin, load_weights, weights

FITTED = 2000  # training images whose accuracy is measured after the training


class Announced(NamedTuple):
    """What is read for a step.

    Attributes
    ----------
    request
        The items.
    mixing
        How the recipe mixes in the step.
    classes
        The classes that the method announced; None if it announced nothing.
    """

    request: Request
    mixing: Mixing
    classes: Tensor | None = None


class Journal(Protocol):
    """Stores a run's checkpoints, weights and progress."""

    def restore(self) -> State | None:
        """Return the newest intact checkpoint, or None."""

    def after_step(self, step: int, num_steps: int, state: Callable[[], State]) -> None:
        """Write a checkpoint if one is due; raise if a stop was requested."""

    def end_epoch(
        self, row: Mapping[str, float], weights: Callable[[], State], names: list[str]
    ) -> None:
        """Show an epoch's metrics and save its weights under every given name."""


def train(setup: Setup, journal: Journal) -> Run:
    """Train one model with one method, resuming from the journal's checkpoint if there is one.

    Parameters
    ----------
    setup
        The configuration of the run.
    journal
        Stores checkpoints, weights and progress.

    Returns
    -------
    run
        The finished run.

    Raises
    ------
    Diverged
        If a loss or a validation metric is not finite.
    """
    run = begin(setup)
    start = _restore(run, journal.restore())
    ahead: deque[Announced] = deque()  # the batches in flight
    asked = _requests(run, start, ahead)
    reading = batches(run.train, asked, setup.workers, setup.distributed)
    with closing(reading) as images:
        for step, batch in enumerate(images, start):
            _train_on(run, step, batch, ahead.popleft())
            if (step + 1) % run.steps_per_epoch == 0 or step + 1 == run.num_steps:
                _end_epoch(run, -(-(step + 1) // run.steps_per_epoch), journal)
            journal.after_step(step + 1, run.num_steps, lambda: _state(run, step + 1))  # noqa: B023
    return run


def _train_on(run: Run, step: int, images: Tensor, announced: Announced) -> None:
    """Mix a batch, compute its gradients and take an optimizer step."""
    setup, size = run.setup, len(announced.request.items)
    targets = run.train.targets[announced.request.all_items()].to(setup.device)
    ahead = None
    if announced.classes is not None:
        ahead = ReadAhead(announced.classes, images, targets)
    per_element = setup.recipe.mix_mode != "batch" and setup.method.per_element
    # Dropout and similar layers draw from the global generator.
    torch.manual_seed(stream_seed(setup.seed, "layer", step) + setup.distributed.rank)
    state = Step(
        images[:size],
        targets[:size],
        rng=generator(setup.seed, "mix", step),
        task=setup.task,
        model=run.model,
        split=run.train,
        read_ahead=ahead,
        overwritable=not per_element,
        loss=run.loss,
        per_element=per_element,
        mixing=announced.mixing,
    )
    state.teachers = setup.teachers
    if run.averages.of_method is not None:
        state.ema = run.averages.of_method.module
    loss, num_images = run.gradients(state)
    for group in run.optimizer.param_groups:
        group["lr"] = group["speed"] * learning_rate(setup.recipe, step, run.num_steps)
    if setup.recipe.clip_grad:
        parameters = [*run.model.parameters(), *setup.method.parameters()]
        torch.nn.utils.clip_grad_norm_(parameters, setup.recipe.clip_grad)
    run.optimizer.step()
    run.averages.update(run.shared)
    run.losses[step % run.steps_per_epoch] = setup.distributed.mean(loss)
    run.counters.images += num_images


def _requests(run: Run, start: int, ahead: deque[Announced]) -> Iterator[Request]:
    """Yield the items of each batch and of the method's announced draws; append them to `ahead`."""
    for step in range(start, run.num_steps):
        ahead.append(_announced(run, step))
        yield ahead[-1].request


def _announced(run: Run, step: int) -> Announced:
    """Return what to read for a step."""
    seed, items = run.setup.seed, batch_index(run, step)
    request = Request(items, generator(seed, "augment", step))
    mixing = mixing_of(run.setup.recipe, seed, step, run.num_steps)
    if not mixing.mixes:
        return Announced(request, mixing)
    draws = run.setup.method.draws(len(items), generator(seed, "mix", step))
    if draws is None or run.train.by_class is None:  # without classes, the method's `mix` says so
        return Announced(request, mixing)
    rng = generator(seed, "draw", step)
    drawn = run.train.by_class.draw(draws.classes, rng)
    replaced = draws.replaced if draws.replaced.any() else None
    request = request._replace(drawn=drawn, drawn_rng=rng, replaced=replaced)
    return Announced(request, mixing, draws.classes)


def batch_index(run: Run, step: int) -> Tensor:
    """Return the positions of the training items in the batch of a step, (batch_size,) int64."""
    epoch, position = divmod(step, run.steps_per_epoch)
    size = run.setup.recipe.batch_size
    if run.order[0] != epoch:
        rng = generator(run.setup.seed, "order", epoch)
        order, repeats = torch.randperm(len(run.train), generator=rng), run.setup.recipe.aug_repeats
        if repeats > 1:
            different = order[: -(-len(order) // repeats)]
            order = different.repeat_interleave(repeats)[: len(order)]
            # Within a batch, copies of an image must not be neighbours, which some methods pair.
            order = torch.cat([
                batch[torch.randperm(len(batch), generator=rng)] for batch in order.split(size)
            ])
        run.order = epoch, order
    return run.order[1][position * size : (position + 1) * size]


def _end_epoch(run: Run, epoch: int, journal: Journal) -> None:
    """Check that the epoch's losses are finite, validate, and save the weights that are needed."""
    first = (epoch - 1) * run.steps_per_epoch
    losses = run.losses[: run.num_steps - first]  # a trial may end within an epoch
    bad = torch.nonzero(~losses.isfinite()).flatten().tolist()
    if bad:
        step = first + bad[0] + 1
        raise Diverged(f"The loss is {losses[bad[0]].item()} at step {step} (epoch {epoch}).")
    _tick(run, "train_s")
    setup = run.setup
    row = {"epoch": epoch, "loss": float(losses.mean()), **_validate(run)}
    if epoch == run.num_epochs:
        row |= _fit(run)
    wrong = [name for name, value in row.items() if not math.isfinite(value)]
    if wrong:
        raise Diverged(f"{wrong[0]} is {row[wrong[0]]} at the end of epoch {epoch}.")
    run.curve.append(row)
    _tick(run, "eval_s")

    names = []
    if run.validation is not None and _is_best(run):
        run.best = epoch
        names.append(f"best-{epoch}")  # an earlier checkpoint may still need the one before
    if epoch > run.num_epochs - setup.recipe.tail:
        names.append(f"epoch-{epoch}")
    journal.end_epoch(row, lambda: weights(*run.ranked), names)


def _validate(run: Run) -> dict[str, float]:
    """Return every metric on the validation split, if there is one."""
    if run.validation is None:
        return {}
    setup = run.setup
    predictions = predict(setup.task, *run.ranked, run.validation, setup.workers, setup.distributed)
    scores = setup.task.score(predictions, run.validation.targets)
    return {f"validation_{name}": score.value for name, score in scores.items()}


@torch.no_grad()
def _fit(run: Run) -> dict[str, float]:
    """Return the accuracy in percent on training images, as they are, if they have classes.

    It tells whether the model fits the images on which it was trained. At most `FITTED` images are
    read, which are the same for all methods. Nothing is trained after it.
    """
    if run.train.by_class is None:
        return {}
    order = torch.randperm(len(run.train), generator=generator(run.setup.seed, "evaluate"))
    device, (model, method), right = run.setup.device, run.ranked, 0
    model.eval()
    method.eval()
    for index in order[:FITTED].split(batch_size(run.setup.task)):
        outputs = method.predict(model(run.train.read(index, None).to(device)))
        if outputs.shape[1:] != (run.setup.task.num_classes,):  # they are not of classes
            return {}
        classes = run.train.by_class.classes[index].to(device)
        right += int((outputs.argmax(1) == classes).sum())
    return {"train_accuracy": 100 * right / min(len(order), FITTED)}


def _is_best(run: Run) -> bool:
    """Return whether the last validation is the best so far."""
    primary = next(metric for metric in run.setup.task.metrics if metric.primary)
    sign = 1 if primary.higher_is_better else -1
    values = [sign * row[f"validation_{primary.name}"] for row in run.curve]
    return run.best == 0 or values[-1] > values[run.best - 1]


def _state(run: Run, step: int) -> State:
    """Return the state of a run that a checkpoint stores."""
    _tick(run, "train_s")
    return {
        "step": step,
        "weights": weights(run.model, run.setup.method),
        "optimizer": run.optimizer.state_dict(),
        "losses": run.losses,
        "curve": run.curve,
        "best": run.best,
        "counters": asdict(run.counters),
        "averages": run.averages.state(),
    }


def _restore(run: Run, state: State | None) -> int:
    """Load a checkpoint's state into the run; return the step at which to resume."""
    if state is None:
        return 0
    load_weights(run.model, run.setup.method, state["weights"])
    run.shared.to(run.setup.device)  # loading may replace a buffer
    run.optimizer.load_state_dict(state["optimizer"])
    run.averages.load(state.get("averages", {}), run.setup.device)  # absent before November 2026
    run.losses.copy_(state["losses"])
    run.curve = state["curve"]
    run.best = state["best"]
    run.counters = Counters(**state["counters"])
    return int(state["step"])


def _tick(run: Run, counter: str) -> None:
    """Add the time since the last call to a counter."""
    if run.setup.device.type == "cuda":
        torch.cuda.synchronize(run.setup.device)
    now = perf_counter()
    setattr(run.counters, counter, getattr(run.counters, counter) + now - run.clock)
    run.clock = now
