"""What every mixing method owes, as checks that anyone can run on any method.

Each check takes a `Subject` and raises AssertionError with a sentence that says what was measured.
The most telling one lights image i only in channel i: after mixing, a channel's mean is exactly
the share of its image, and must be what `Sources` says. Images are never square and batches never
as many as classes, so that exchanged axes show.
"""

import copy
import inspect
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_type_hints

import numpy as np
import torch

from mixbench.registry.units import load_method
from mixbench.stages.evaluation import predict
from mixbench.stages.mixing import mixed_step
from mixbench.testing.toy import (
    CLASSES,
    SEEDS,
    SIZES,
    Subject,
    ToySplit,
    mix,
    mixes,
    noise,
    toy_step,
)

TOLERANCE = 1e-5


def labels_say_what_the_pixels_hold(subject: Subject) -> None:
    """The weights of `Sources` are the shares of the pixels."""
    for where, mixed in mixes(subject):
        sources = mixed.sources
        shares = mixed.step.images.mean((2, 3))[sources.index]  # of every source, by channel
        said = (shares * sources.weight[..., None]).sum(1)
        gap = float((mixed.images.mean((2, 3)) - said).abs().max())
        assert gap <= TOLERANCE, f"weights are {gap:.3f} away from the pixels' shares {where}"


def weights_are_shares(subject: Subject) -> None:
    """Weights are float32, non-negative, and rows sum to 1."""
    for where, mixed in mixes(subject):
        weight = mixed.sources.weight
        assert weight.dtype == torch.float32, f"weights are {weight.dtype} {where}"
        assert float(weight.min()) >= 0, f"a weight is {float(weight.min()):.3f} {where}"
        gap = float((weight.sum(1) - 1).abs().max())
        assert gap <= TOLERANCE, f"rows of weights are {gap:.3f} away from 1 {where}"


def sources_are_in_the_batch(subject: Subject) -> None:
    """Indices are int64, one row per image, and point into the batch."""
    for where, mixed in mixes(subject):
        index, weight = mixed.sources
        assert index.dtype == torch.int64, f"indices are {index.dtype} {where}"
        assert index.shape == weight.shape == (6, index.shape[-1]), f"shape {index.shape} {where}"
        assert int(index.min()) >= 0, f"an index is {int(index.min())} {where}"
        assert int(index.max()) < len(mixed.step.images), f"an index is out of the batch {where}"


def shape_and_dtype_stay(subject: Subject) -> None:
    """The mixed batch has the shape and type of what went in, for every size of batch."""
    for number in (1, 2, 7):
        for size in SIZES:
            images = noise(number, size)
            mixed = mix(subject, images, seed=1).images
            assert mixed.shape == images.shape, f"{tuple(images.shape)} became {mixed.shape}"
            assert mixed.dtype == images.dtype, f"{images.dtype} became {mixed.dtype}"


def bfloat16_stays_and_weights_do_not_follow(subject: Subject) -> None:
    """Images in bfloat16 stay so; weights remain float32."""
    for seed in SEEDS:
        mixed = mix(subject, noise(6, (8, 12)).bfloat16(), seed)
        assert mixed.images.dtype == torch.bfloat16, f"bfloat16 became {mixed.images.dtype}"
        assert mixed.sources.weight.dtype == torch.float32, "weights followed to bfloat16"


def input_is_left_alone(subject: Subject) -> None:
    """Mixing modifies neither the images nor the targets that it is given."""
    for seed in SEEDS:
        images = noise(6, (8, 12))
        before = images.clone()
        step = mix(subject, images, seed).step
        assert torch.equal(images, before), f"the images were modified (stream {seed})"
        assert torch.equal(step.targets[:6], torch.arange(6) % CLASSES), "targets were modified"


def same_stream_same_result(subject: Subject) -> None:
    """Equal streams give equal results, bit by bit."""
    for seed in SEEDS:
        first, second = (mix(subject, noise(6, (8, 12)), seed) for _ in range(2))
        assert torch.equal(first.images, second.images), f"images differ (stream {seed})"
        assert torch.equal(first.sources.weight, second.sources.weight), "weights differ"


def other_stream_other_result(subject: Subject) -> None:
    """A method that mixes at all draws anew in each step."""
    images = noise(6, (8, 12))
    results = [mix(subject, images, seed).images for seed in SEEDS]
    untouched = all(torch.equal(result, images) for result in results)
    varied = any(not torch.equal(results[0], other) for other in results[1:])
    assert untouched or varied, f"{len(results)} streams gave one and the same result"


def draws_only_from_its_stream(subject: Subject) -> None:
    """No global random state is used or set."""
    with unchanged_global_randomness():
        for seed in SEEDS:
            mix(subject, noise(6, (8, 12)), seed)


@contextmanager
def unchanged_global_randomness() -> Iterator[None]:
    """Fail if the global generators of torch, numpy or Python moved."""
    before = _global_randomness()
    yield
    moved = [name for name, state in _global_randomness().items() if state != before[name]]
    assert not moved, f"the global generator of {', '.join(moved)} was used"


def _global_randomness() -> dict[str, str]:
    with np.printoptions(threshold=10_000):
        legacy = repr(np.random.get_state())  # noqa: NPY002  # it is what must not move
    return {
        "torch": repr(torch.get_rng_state().numpy().tobytes()),
        "numpy": legacy,
        "Python": repr(random.getstate()),
    }


def alike_images_stay(subject: Subject) -> None:
    """Mixing an image with itself changes nothing."""
    images = noise(1, (8, 12)).expand(6, -1, -1, -1).contiguous()
    for seed in SEEDS:
        gap = float((mix(subject, images, seed).images - images).abs().max())
        assert gap <= TOLERANCE, f"equal images came back {gap:.3f} apart (stream {seed})"


def loss_falls(subject: Subject) -> None:
    """Forty steps lower the loss at every site, with finite gradients for all parameters."""
    method, model, task = subject.bound()
    split = task.load("train", Path(), 0)
    parameters = [*model.parameters(), *method.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.05, momentum=0.9)
    losses = []
    for number in range(40):
        loss = mixed_step(method, toy_step(split, task, model, number)).loss
        optimizer.zero_grad()
        loss.backward()
        gradients = [p.grad for p in parameters if p.grad is not None]
        assert all(bool(g.isfinite().all()) for g in gradients), f"a gradient at step {number}"
        optimizer.step()
        losses.append(float(loss.detach()))
    first, last = sum(losses[:8]) / 8, sum(losses[-8:]) / 8
    assert last < first, f"the loss went from {first:.3f} to {last:.3f} in 40 steps"


def all_parameters_learn(subject: Subject) -> None:
    """Every parameter that the method adds takes part in its loss."""
    method, model, task = subject.bound()
    split = task.load("train", Path(), 0)
    for number in range(8):
        mixed_step(method, toy_step(split, task, model, number)).loss.backward()
    idle = [n for n, p in method.named_parameters() if p.grad is None or not p.grad.any()]
    assert not idle, f"no gradient reaches {', '.join(idle)}"


def state_survives(subject: Subject) -> None:
    """A fresh instance with the state of another has the same loss."""
    method, model, task = subject.bound()
    split = task.load("train", Path(), 0)
    parameters = [*model.parameters(), *method.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    for number in range(3):
        optimizer.zero_grad()
        mixed_step(method, toy_step(split, task, model, number)).loss.backward()
        optimizer.step()
    other = subject.fresh()
    other.bind(model, task)
    other.load_state_dict(copy.deepcopy(method.state_dict()))
    losses = [
        [
            float(mixed_step(m, toy_step(split, task, model.eval(), n)).loss.detach())
            for n in range(8)
        ]
        for m in (method, other)
    ]
    gap = max(abs(a - b) for a, b in zip(*losses, strict=True))
    assert gap <= TOLERANCE, f"the losses are {gap:.3f} apart after a round trip of the state"


def evaluation_is_untouched(subject: Subject) -> None:
    """Evaluation mixes nothing, draws nothing and depends on each image alone."""
    method, model, task = subject.bound()
    split = task.load("test", Path(), 0)
    few = ToySplit(split.read(torch.arange(7), None), split.targets[:7])
    model.train()
    with unchanged_global_randomness():
        whole = predict(task, model, method, split)["outputs"]
        part = predict(task, model, method, few)["outputs"]
    assert model.training, "the model was left in evaluation mode"
    gap = float((whole[:7] - part).abs().max())
    assert gap <= 1e-4, f"predictions change by {gap:.3f} with the company of the image"


def card_tells_the_truth(subject: Subject) -> None:
    """What is read from the file without running it is what the class has."""
    card = subject.card
    if card is None:
        return
    unit = load_method(card)
    told = {p.name: (p.type, p.default) for p in card.parameters}
    hints = get_type_hints(unit.__init__, include_extras=True)
    taken = {
        name: (hints[name], parameter.default)
        for name, parameter in inspect.signature(unit).parameters.items()
        if parameter.kind not in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}
    }
    assert told == taken, f"the file declares {told}, the class takes {taken}"
    declared = {name: getattr(unit, name) for name in card.declared}
    assert declared == card.declared, f"the file declares {card.declared}, the class {declared}"
    for field in ("Paper", "Source", "Differs"):
        assert card.header.get(field), f"the file's docstring has no field {field}"


METHOD_CHECKS: tuple[Callable[[Subject], None], ...] = (
    card_tells_the_truth,
    labels_say_what_the_pixels_hold,
    weights_are_shares,
    sources_are_in_the_batch,
    shape_and_dtype_stay,
    bfloat16_stays_and_weights_do_not_follow,
    input_is_left_alone,
    same_stream_same_result,
    other_stream_other_result,
    draws_only_from_its_stream,
    alike_images_stay,
    loss_falls,
    all_parameters_learn,
    state_survives,
    evaluation_is_untouched,
)
