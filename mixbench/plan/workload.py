"""The images that a plan passes through its models, counted from declarations, without the data."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from mixbench.datasets.locate import DataSource, data_of, declared_holdout, num_test_items
from mixbench.declare import Data
from mixbench.plan.graph import Plan, card_of
from mixbench.registry.cards import TaskCard
from mixbench.storage.spec import PUBLISHED, Stage

SEARCHES = ("genetic", "direct")  # values of a method's parameter `search` that score images


@dataclass(frozen=True)
class Workload:
    """The work of all cells and stages that share a task and a model.

    Attributes
    ----------
    example
        A training or evaluation of the group.
    trainings
        Number of trainings, including those that other cells start from.
    trained
        Number of images that training steps process.
    searched
        Largest number of images that searches score.
    predicted
        Number of images in validation and test.
    known
        Whether the numbers of images are known; they are not for generated data, and for data of
        the user's own only if it has a folder of test images. Some of the classes count as if all
        had as many images.
    """

    example: Stage
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
    whole = {*PUBLISHED, "re-encoded"}
    other = {str(c.data.folder): c.data for c in plan.cells if c.data.origin not in whole}
    return {
        key: _of_group([(stage, _items(stage, other)) for stage in group])
        for key, group in groups.items()
    }


class Items(NamedTuple):
    """Numbers of items of the data that a stage reads as a whole.

    Attributes
    ----------
    train
        Items of the training split.
    validation
        Items of the validation split.
    test
        Items of the test split.
    """

    train: int
    validation: int
    test: int


def _of_group(stages: list[tuple[Stage, Items | None]]) -> Workload:
    """Return the work of stages that share a task and a model."""
    known = [(stage, items) for stage, items in stages if items is not None]
    trainings = [stage for stage, _ in stages if stage.kind == "train"]
    return Workload(
        example=(trainings or [stages[0][0]])[0],
        trainings=len(trainings),
        trained=sum(_trained(stage, items) for stage, items in known),
        searched=sum(_searched(stage) for stage, _ in stages),
        predicted=sum(_predicted(stage, items) for stage, items in known),
        known=len(known) == len(stages),
    )


def may_be_few(stage: Stage) -> bool:
    """Return whether training images may be fewer than a batch: a user's, or some of each class."""
    return data_read(stage).own or bool(stage.identity.task.parameters.get("per_class"))


def data_read(stage: Stage) -> Data:
    """Return the declaration of the data that a stage reads."""
    return data_of(_task_of(stage), stage.identity.task.parameters)


def _task_of(stage: Stage) -> TaskCard:
    card = card_of(stage, "task")
    assert isinstance(card, TaskCard)
    return card


def _whole(stage: Stage, other: Mapping[str, DataSource]) -> tuple[int, int, int]:
    """Return the numbers of images for training, of test items and of classes; 0 if unknown."""
    card, parameters = _task_of(stage), stage.identity.task.parameters
    given = other.get(stage.paths.data or "")
    if "data" in stage.inputs or (given is not None and given.origin != "own"):
        return 0, 0, 0
    if given is None:
        classes = int(str(card.defaults.get("classes", 0)))
        return data_read(stage).num_train, num_test_items(card, parameters), classes
    return given.contents.train, given.contents.test, given.contents.folders


def _items(stage: Stage, other: Mapping[str, DataSource]) -> Items | None:
    """Return how much data a stage reads; None if it is unknown."""
    card, data = _task_of(stage), data_read(stage)
    parameters = stage.identity.task.parameters
    images, tested, of = _whole(stage, other)
    classes = int(str(parameters.get("classes", 0)))
    share = declared_holdout(card, parameters)
    read = tested if stage.kind == "evaluate" else images
    per_class = int(str(parameters.get("per_class", 0)))
    countable = bool(classes) == bool(of) and (classes or not per_class)
    if not (read and countable) or share is None:
        return None
    part = classes / of if of else 1.0  # as if all classes had as many images
    train = round(images * part)
    train = min(train, per_class * classes) if per_class else train
    held_out = round(train * share)
    train = card.declared.items_per_image * (train - held_out)
    numbers = train, data.num_validation or held_out, round(tested * part)
    limit = stage.identity.run.recipe.limit if stage.identity.run else 0
    return Items(*(min(number, limit or number) for number in numbers))


def _trained(stage: Stage, items: Items) -> int:
    """Return the number of images that the steps of a training process."""
    recipe = stage.run.recipe
    steps, size = recipe.epochs * (items.train // recipe.batch_size), recipe.batch_size
    steps = min(steps, recipe.max_steps or steps)
    if recipe.mix_mode == "half":
        size = (size + 1) // 2
    return steps * size if stage.kind == "train" else 0


def _predicted(stage: Stage, items: Items) -> int:
    """Return the number of images of which a stage computes predictions."""
    recipe = stage.run.recipe
    if stage.kind == "train":
        return recipe.epochs * items.validation
    if stage.kind != "evaluate":
        return 0
    once = stage.identity.base_task is not None
    best = recipe.final_on == "train" and items.validation > 0
    return items.test * (1 if once else min(recipe.tail, recipe.epochs) + best)


def _searched(stage: Stage) -> int:
    """Return the largest number of images that a stage scores in a search."""
    parameters = stage.run.method.parameters
    searches = stage.kind == "prepare" and parameters.get("search") in SEARCHES
    return int(str(parameters.get("budget", 0))) if searches else 0
