"""The images that a plan passes through its models, counted from declarations, without the data."""

from collections.abc import Mapping, Set
from dataclasses import dataclass

from mixbench.datasets.locate import data_of
from mixbench.declare import Data
from mixbench.plan.graph import Plan
from mixbench.registry.cards import TaskCard
from mixbench.registry.units import find
from mixbench.storage.spec import PUBLISHED, Stage

SEARCHES = ("genetic", "direct")  # values of a method's parameter `search` that score images


@dataclass(frozen=True)
class Workload:
    """The work of all cells and stages that share a task and a model.

    Attributes
    ----------
    example
        A training or evaluation of the group.
    cells
        Number of cells.
    trainings
        Number of trainings, including those that other cells start from.
    trained
        Number of images that training steps process.
    searched
        Largest number of images that searches score.
    predicted
        Number of images in validation and test.
    known
        Whether the numbers of images are known; they are not for data of the user's own, for
        generated data, and for a part of the classes.
    """

    example: Stage
    cells: int = 0
    trainings: int = 0
    trained: int = 0
    searched: int = 0
    predicted: int = 0
    known: bool = True


def workloads(plan: Plan) -> dict[tuple[str, str], Workload]:
    """Return the work of a plan by task and model, in the order of the plan's stages."""
    groups: dict[tuple[str, str], list[Stage]] = {}
    for stage in plan.stages.values():
        if stage.identity.run is not None:
            key = stage.identity.task.name, stage.run.model
            groups.setdefault(key, []).append(stage)
    cells = [(cell.task.card.name, cell.model) for cell in plan.cells]
    other = {str(c.data.folder) for c in plan.cells if c.data.origin not in PUBLISHED}
    return {
        key: _of_group([(stage, _data(stage, other)) for stage in group], cells.count(key))
        for key, group in groups.items()
    }


Read = tuple[Stage, Data | None]  # a stage, and the data that it reads as a whole


def _of_group(stages: list[Read], cells: int) -> Workload:
    """Return the work of stages that share a task and a model."""
    trainings = [(stage, data) for stage, data in stages if stage.kind == "train"]
    return Workload(
        example=(trainings or stages)[0][0],
        cells=cells,
        trainings=len(trainings),
        trained=sum(_trained(stage, data) for stage, data in trainings),
        searched=sum(_searched(stage) for stage, _ in stages if stage.kind == "prepare"),
        predicted=sum(_predicted(stage, data) for stage, data in stages),
        known=all(data is not None for _, data in stages),
    )


def _data(stage: Stage, other: Set[str]) -> Data | None:
    """Return the data that a stage reads; None if it is not the whole official data."""
    parameters: Mapping[str, object] = stage.identity.task.parameters
    card = find("task", stage.paths.unit_files.get("task", stage.identity.task.name))
    assert isinstance(card, TaskCard)
    declared = data_of(card, stage.identity.task.parameters)
    whole = parameters.get("classes") == card.defaults.get("classes")
    official = "data" not in stage.inputs and stage.paths.data not in other
    return declared if whole and official and declared.num_test else None


def _trained(stage: Stage, data: Data | None) -> int:
    """Return the number of images that the steps of a training process."""
    if data is None:
        return 0
    recipe = stage.run.recipe
    items = data.num_train - _held_out(stage, data)
    return recipe.epochs * (items // recipe.batch_size) * recipe.batch_size


def _predicted(stage: Stage, data: Data | None) -> int:
    """Return the number of images of which a stage computes predictions."""
    if data is None:
        return 0
    recipe = stage.run.recipe
    validation = data.num_validation or _held_out(stage, data)
    if stage.kind == "train":
        return recipe.epochs * validation
    if stage.kind != "evaluate":
        return 0
    once = stage.identity.base_task is not None
    best = recipe.final_on == "train" and validation > 0
    return data.num_test * (1 if once else min(recipe.tail, recipe.epochs) + best)


def _held_out(stage: Stage, data: Data) -> int:
    """Return the number of training items that are held out for validation."""
    share = float(str(stage.identity.task.parameters.get("holdout", 0.0)))
    return 0 if data.num_validation else round(data.num_train * share)


def _searched(stage: Stage) -> int:
    """Return the largest number of images that a search scores."""
    parameters = stage.run.method.parameters
    budget = parameters.get("budget", 0)
    return int(str(budget)) if parameters.get("search") in SEARCHES else 0
