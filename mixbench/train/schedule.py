"""The learning-rate schedule of a recipe."""

import math

from mixbench.declare import Recipe


def learning_rate(recipe: Recipe, step: int, num_steps: int) -> float:
    """Return the learning rate of a step.

    Without milestones it is cosine annealing to 0. Otherwise the rate is multiplied by 0.1 after
    every milestone epoch.
    """
    if not recipe.milestones:
        return recipe.lr * (1 + math.cos(math.pi * step / num_steps)) / 2
    epoch = step * recipe.epochs // num_steps
    return recipe.lr * 0.1 ** sum(epoch >= milestone for milestone in recipe.milestones)
