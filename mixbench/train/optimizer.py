"""The optimizer of a recipe, and its parameter groups."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from mixbench.contract import Backbone, Method
from mixbench.declare import Recipe

Group = dict[str, Any]  # torch's parameter group, with its multiplier of the learning rate


def make_optimizer(groups: list[Group], recipe: Recipe) -> torch.optim.Optimizer:
    """Return the recipe's optimizer for parameter groups."""
    lr, betas, weight_decay = recipe.lr, (recipe.momentum, 0.999), recipe.weight_decay
    if recipe.optimizer == "adam":
        return torch.optim.Adam(groups, lr, betas, weight_decay=weight_decay)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr, betas, weight_decay=weight_decay)
    if recipe.optimizer == "lamb":
        from timm.optim import Lamb  # type: ignore[attr-defined]  # timm exports it lazily

        lamb: torch.optim.Optimizer = Lamb(groups, lr, betas=betas, weight_decay=weight_decay)
        return lamb
    return torch.optim.SGD(
        groups,
        lr=lr,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov and recipe.momentum > 0,
        weight_decay=weight_decay,
    )


def parameter_groups(model: Backbone, method: Method, recipe: Recipe) -> list[Group]:
    """Return the parameters of the model and the method, grouped by speed and weight decay.

    The entry ``speed`` of a group is the multiplier of the recipe's learning rate: that of the
    layer (`Recipe.layer_decay`) times `Recipe.head_lr_mult` for heads and the method. Without layer
    decay and `Recipe.filter_bias_and_bn`, there are two groups: the backbone, and the heads
    together with the method.

    Raises
    ------
    UsageError
        If the recipe has layer decay and the model does not number its layers.
    """
    head_modules = [model.get_submodule(name) for name in model.head_modules]
    chosen = {id(p) for module in (*head_modules, method) for p in module.parameters()}
    parameters = [*model.parameters(), *method.parameters()]
    if recipe.layer_decay == 1 and not recipe.filter_bias_and_bn:
        return [
            {"params": [p for p in parameters if (id(p) in chosen) == is_fast], "speed": speed}
            for is_fast, speed in ((False, 1.0), (True, recipe.head_lr_mult))
        ]
    exempt = _exempt(model, method) if recipe.filter_bias_and_bn else set()
    scales: dict[int, float] = {}
    if recipe.layer_decay < 1:
        scales = {id(p): recipe.layer_decay**depth for p, depth in model.depths()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in parameters:
        speed = scales.get(id(parameter), 1.0)
        speed *= recipe.head_lr_mult if id(parameter) in chosen else 1.0
        decay = 0.0 if id(parameter) in exempt else recipe.weight_decay
        groups.setdefault((speed, decay), []).append(parameter)
    return [
        {"params": members, "speed": speed, "weight_decay": decay}
        for (speed, decay), members in groups.items()
    ]


def _exempt(*modules: nn.Module) -> set[int]:
    """Return the ids of biases, norms and what modules exempt themselves from weight decay."""
    named: Iterable[tuple[str, nn.Parameter]] = (
        item for module in modules for item in module.named_parameters()
    )
    found = {id(p) for name, p in named if p.ndim <= 1 or name.endswith(".bias")}
    for module in modules:
        for inner in module.modules():
            if callable(exempted := getattr(inner, "no_weight_decay", None)):
                names = exempted()
                found |= {id(p) for name, p in inner.named_parameters() if name in names}
    return found
