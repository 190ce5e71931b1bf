"""The learning-rate schedule of a recipe."""

import math

from mixbench.declare import Recipe


def learning_rate(recipe: Recipe, step: int, num_steps: int) -> float:
    """Return the learning rate of a step.

    Without milestones it is cosine annealing to `Recipe.min_lr`. Otherwise the rate is multiplied
    by 0.1 after every milestone epoch. A warm-up replaces the first steps of either schedule and
    does not shift it, as by default in timm (huggingface/pytorch-image-models@aa4b585,
    timm/scheduler/cosine_lr.py:85-107).
    """
    warmup = recipe.warmup_epochs * num_steps // recipe.epochs
    if step < warmup:
        return recipe.warmup_lr + step * (recipe.lr - recipe.warmup_lr) / warmup
    if not recipe.milestones:
        above = recipe.lr - recipe.min_lr
        return recipe.min_lr + above * (1 + math.cos(math.pi * step / num_steps)) / 2
    epoch = step * recipe.epochs // num_steps
    return recipe.lr * 0.1 ** sum(epoch >= milestone for milestone in recipe.milestones)
