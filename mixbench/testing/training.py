"""Checks of a method in training and evaluation: loss, gradients, state and predictions."""

import copy
from pathlib import Path

import torch

from mixbench.contract.loading import load_method
from mixbench.testing.measuring import TOLERANCE, unchanged_global_randomness, within
from mixbench.testing.toy import Subject, ToySplit, toy_step
from mixbench.train.evaluation import predict
from mixbench.train.mixing import mixed_step


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
    """Every parameter that the method adds receives a gradient.

    Else: use every head in `loss`, or do not create it.
    """
    method, model, task = subject.bound()
    split = task.load("train", Path(), 0)
    for number in range(8):
        mixed_step(method, toy_step(split, task, model, number)).loss.backward()
    idle = [n for n, p in method.named_parameters() if p.grad is None or not p.grad.any()]
    assert not idle, f"no gradient reaches {', '.join(idle)}"
    return f"{sum(1 for _ in method.parameters())} parameter tensors added"


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
