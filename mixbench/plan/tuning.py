"""Grid search over values of a recipe, selected on the validation split per method and seed."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product

from mixbench.declare import Recipe
from mixbench.declare.facts import Parameters, ParameterValue
from mixbench.errors import UsageError
from mixbench.registry.parameters import recipe_value

Grid = Mapping[str, tuple[ParameterValue, ...]]  # values of a recipe by their names

# Factors that multiply the recipe's own values, unless the user gives values.
FACTORS: Mapping[str, tuple[float, ...]] = {"lr": (0.3, 1, 3), "weight_decay": (0.1, 1, 10)}
# Values of a recipe that can be tuned: those that do not change the cost of a training.
TUNABLE = ("lr", "head_lr_mult", "momentum", "nesterov", "weight_decay")


def read_grid(texts: Sequence[str]) -> dict[str, list[str]]:
    """Parse texts of the form ``NAME=VALUE,VALUE``; empty texts stand for the default grid.

    Raises
    ------
    UsageError
        If a text does not have this form, or names a value that cannot be tuned.
    """
    grid = {}
    for text in filter(None, texts):
        name, equals, values = text.partition("=")
        if not equals or name.strip() not in TUNABLE:
            raise UsageError(
                f"--tune takes the values of one of {', '.join(TUNABLE)}, as in lr=0.01,0.03 (got "
                f"{text!r})."
            )
        grid[name.strip()] = [value.strip() for value in values.split(",")]
    return grid


def grid_of(task: str, recipe: Recipe, texts: Mapping[str, Sequence[str]]) -> Grid:
    """Return the grid of values to try for a task's recipe.

    Parameters
    ----------
    task
        Name of the task, for error messages.
    recipe
        Recipe that is tuned.
    texts
        Values that the user gave, by name; if empty, `FACTORS` times the recipe's own values.

    Raises
    ------
    UsageError
        If the grid has only one candidate.
    """
    given = {n: [recipe_value(task, n, text) for text in values] for n, values in texts.items()}
    around = {n: [float(f"{f * getattr(recipe, n):.6g}") for f in fs] for n, fs in FACTORS.items()}
    grid = {name: tuple(dict.fromkeys(values)) for name, values in (given or around).items()}
    if len(candidates(recipe, grid)) == 1:
        raise UsageError("--tune needs two candidates or more, as in --tune lr=0.01,0.03.")
    return grid


def candidates(recipe: Recipe, grid: Grid) -> dict[str, Recipe]:
    """Return every recipe of a grid, by its label."""
    points: list[Parameters] = [
        dict(zip(grid, values, strict=True)) for values in product(*grid.values())
    ]
    return {shown(point): replace(recipe, **point) for point in points}


def shown(point: Parameters) -> str:
    """Return a candidate's label, as in lr=0.1,weight_decay=0.0005."""
    return ",".join(f"{name}={value}" for name, value in point.items())
