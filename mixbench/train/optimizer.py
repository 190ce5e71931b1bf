"""The optimizer of a recipe, and its parameter groups."""

from typing import Any

import torch

from mixbench.contract import Backbone, Method
from mixbench.declare import Recipe

Group = dict[str, Any]  # torch's parameter group, with its multiplier of the learning rate


def make_optimizer(groups: list[Group], recipe: Recipe) -> torch.optim.Optimizer:
    """Return the recipe's optimizer for parameter groups."""
    if recipe.optimizer == "adam":
        betas = (recipe.momentum, 0.999)
        return torch.optim.Adam(groups, recipe.lr, betas, weight_decay=recipe.weight_decay)
    return torch.optim.SGD(
        groups,
        lr=recipe.lr,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov and recipe.momentum > 0,
        weight_decay=recipe.weight_decay,
    )


def parameter_groups(model: Backbone, method: Method, recipe: Recipe) -> list[Group]:
    """Return two parameter groups: the backbone, and the heads together with the method.

    The entry ``speed`` of a group is the multiplier of the recipe's learning rate: 1 for the
    backbone, `Recipe.head_lr_mult` for the heads and the method.
    """
    head_modules = [model.get_submodule(name) for name in model.head_modules]
    chosen = {id(p) for module in (*head_modules, method) for p in module.parameters()}
    parameters = [*model.parameters(), *method.parameters()]
    return [
        {"params": [p for p in parameters if (id(p) in chosen) == is_fast], "speed": speed}
        for is_fast, speed in ((False, 1.0), (True, recipe.head_lr_mult))
    ]
