"""Checks of a method in training and evaluation: loss, gradients, state and predictions."""

import copy
import math
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate, one_hot

from mixbench.contract import Method, Output
from mixbench.contract.loading import load_method
from mixbench.testing.measuring import TOLERANCE, unchanged_global_randomness, within
from mixbench.testing.toy import CLASSES, SEEDS, Subject, ToySplit, lit, step_of, toy_step
from mixbench.train.evaluation import predict
from mixbench.train.mixing import mixed_step

PLANTED = 6  # images whose predictions are planted
CERTAIN = 8.0  # logit of a class that is recognised
SLACK = 0.1  # for cells that do not fit the feature map


def loss_decreases(subject: Subject) -> str:
    """The loss falls over 40 training steps that mix at all sites, and all gradients are finite.

    Else: check that `loss` compares each prediction with the targets of its own sources.
    """
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
        assert all(bool(g.isfinite().all()) for g in gradients), (
            f"a gradient is not finite at step {number}"
        )
        optimizer.step()
        losses.append(float(loss.detach()))
    first, last = sum(losses[:8]) / 8, sum(losses[-8:]) / 8
    assert last < first, f"the loss went from {first:.3f} to {last:.3f} in 40 steps"
    return f"from {first:.3f} to {last:.3f}"


def all_parameters_get_gradients(subject: Subject) -> str:
    """Every parameter that predictions depend on, or that the method adds, receives a gradient.

    Else: use every head in `loss`, or do not create it, and detach nothing that the model computes.
    """
    method, model, task = subject.bound()
    split = task.load("train", Path(), 0)
    for number in range(8):
        mixed_step(method, toy_step(split, task, model, number)).loss.backward()
    trained = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad()
    images = split.read(torch.arange(7), None)
    method.predict(model(images)).square().sum().backward()
    used = (f"model.{name}" for name, p in model.named_parameters() if p.grad is not None)
    every = {name: trained[name.removeprefix("model.")] for name in used}
    every |= {name: p.grad for name, p in method.named_parameters()}
    idle = [name for name, gradient in every.items() if gradient is None or not gradient.any()]
    assert not idle, f"no gradient reaches {', '.join(idle)}"
    return f"{sum(1 for _ in method.parameters())} parameter tensors added"


def loss_fits_the_sources(subject: Subject) -> str:
    """A loss of its own is smallest for predictions that show where each source is.

    The predictions are planted: the feature map shows at each place the class of the image that
    is there, and the logits the mixed label. The loss must not be smaller if the map is mirrored or
    transposed, if the predictions are those of other images of the batch, or if the logits show
    other shares of the same sources.

    Else: compare each prediction with the targets of its own sources, at their own places, and
    weigh them by `sources.weight`.
    """
    method, model, task = subject.bound(PLANTED + 1)
    if type(method).loss is Method.loss:
        return "the default loss"
    _recognise_classes([*method.modules(), model.classifier], model.feature_dim)
    losses: dict[str, float] = defaultdict(float)
    for seed in SEEDS:
        images = lit(PLANTED, task.image_size, PLANTED + 1, seed)
        step = step_of(images, seed, task, model)
        mixed, sources = method.mix(images, step)
        shown = one_hot(step.targets, CLASSES).float()
        found = torch.zeros(PLANTED, model.feature_dim, *model.feature_size)
        even = torch.full((PLANTED, *model.feature_size), 1 / math.prod(model.feature_size))
        pooled = adaptive_avg_pool2d(mixed[:, :PLANTED], model.feature_size)
        found[:, :CLASSES] = torch.einsum("bnhw,nk->bkhw", pooled, shown[:PLANTED])
        logits, exchanged, equal = (
            ((shown[sources.index] * weight[..., None]).sum(1) + 1e-3).log()
            for weight in (
                sources.weight,
                sources.weight.flip(1),
                torch.full_like(sources.weight, 1 / sources.weight.shape[1]),
            )
        )
        for how, output in {
            "in place": Output(logits, found),
            "of other images": Output(logits.roll(1, 0), found.roll(1, 0)),
            "upside down": Output(logits, found.flip(2)),
            "mirrored": Output(logits, found.flip(3)),
            "transposed": Output(logits, interpolate(found.mT, model.feature_size)),
            "with exchanged shares": Output(exchanged, found),
            "with equal shares": Output(equal, found),
        }.items():
            shown_evenly = output._replace(attention=even if method.needs_attention else None)
            found_loss = method.loss(shown_evenly, sources, step).detach()
            losses[how] += float(found_loss) / len(SEEDS)
    true = losses.pop("in place")
    for how, loss in losses.items():
        slack = TOLERANCE if how.startswith("with") else SLACK * loss
        assert true <= loss + slack, (
            f"the mean loss is {true:.3f} for the right predictions and {loss:.3f} for those {how}"
        )
    return f"{true:.3f}; {', '.join(f'{how} {loss:.3f}' for how, loss in losses.items())}"


def _recognise_classes(modules: Iterable[nn.Module], feature_dim: int) -> None:
    """Let linear classifiers of features return the class that the first features show."""
    for module in modules:
        if isinstance(module, nn.Linear) and module.weight.shape == (CLASSES, feature_dim):
            module.weight.data.zero_()[:, :CLASSES] = CERTAIN * torch.eye(CLASSES)
            if module.bias is not None:
                module.bias.data.zero_()


def state_dict_round_trips(subject: Subject) -> str:
    """A new instance that loads the state of another one has the same loss.

    Else: register heads as submodules, and search results as buffers.
    """
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
    assert gap <= TOLERANCE, f"the losses differ by {gap:.3f} after saving and loading the state"
    return f"{within(gap)} after saving and loading"


def evaluation_is_unchanged(subject: Subject) -> str:
    """Evaluation does not mix or draw random numbers, and predicts each image independently.

    Else: mix only in `mix`, and make `predict` process each item independently.
    """
    method, model, task = subject.bound()
    split = task.load("test", Path(), 0)
    few = ToySplit(split.read(torch.arange(7), None), split.targets[:7])
    model.train()
    with unchanged_global_randomness():
        whole = predict(task, model, method, split)["outputs"]
        part = predict(task, model, method, few)["outputs"]
    assert model.training, "the model was left in evaluation mode"
    gap = float((whole[:7] - part).abs().max())
    assert gap <= 1e-4, f"predictions change by {gap:.3f} with the other images"
    return f"largest difference {gap:.1e} (limit 1e-4)"


def card_matches_class(subject: Subject) -> str:
    """The declarations read from the file equal those of the loaded class.

    Else: declare as literals in the class, and begin the file with Paper, Source and Differs.
    """
    card = subject.card
    if card is None:
        return "a class without a file"
    load_method(card)  # raises if a declaration differs
    for field in ("Paper", "Source", "Differs"):
        assert card.header.get(field), f"the file's docstring has no field {field}"
    return f"{len(card.parameters)} parameters, {len(card.attributes)} declarations"
