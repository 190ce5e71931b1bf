"""Checks that methods and models fit their tasks, before any training starts.

They run in another process because they import torch, which the launcher does not.
"""

from collections.abc import Iterable
from pathlib import Path

from mixbench.contract import Backbone, Evaluation, Method, Task
from mixbench.errors import BadParameter, DataError, MixbenchError
from mixbench.storage.spec import STAGES, Stage
from mixbench.train.criterion import criterion
from mixbench.train.gradients import check_accumulation
from mixbench.train.optimizer import parameter_groups
from mixbench.train.setup import prepare_model
from mixbench.vision.images.policies import transform_of
from mixbench.vision.images.splits import read_packed, with_augmentation
from mixbench.worker.job import make_method, make_task


def complaint(stage: Stage) -> str:
    """Return the error that a stage's method or model raises for its task, or an empty text."""
    try:
        task, run = make_task(stage), stage.run
        held_out = None
        # An evaluation has only a test split.
        if stage.paths.data and not isinstance(task, Evaluation) and task.has_validation:
            held_out = task.load("validation", Path(stage.paths.data), run.seed)
        method = make_method(stage)
        method.check(task, held_out)
        check_accumulation(method, run.recipe)
        check_packed(stage, task)
        model = task.build(run.model)
        method.bind(model, task)
        if stage.kind == "train":
            check_recipe(stage, task, model, method)
        if not task.needs.keys() & stage.inputs.keys():  # they are not trained yet
            task.start(model, {})
    except MixbenchError as error:
        return f"{stage.label}: {error}"
    return ""


def check_recipe(stage: Stage, task: Task, model: Backbone, method: Method) -> None:
    """Check that a training can do what its recipe asks for, and what its method needs.

    Raises
    ------
    MixbenchError
        If it cannot.
    """
    recipe, folder = stage.run.recipe, stage.paths.data
    criterion(task, recipe)
    prepare_model(model, method, recipe)
    parameter_groups(model, method, recipe)
    if folder and (recipe.auto_augment or recipe.random_erasing):
        split = task.load("train", Path(folder), stage.run.seed)
        with_augmentation(split, recipe.auto_augment, recipe.random_erasing)
    elif recipe.auto_augment:
        transform_of(recipe.auto_augment, task.image_size)


def check_packed(stage: Stage, task: Task) -> None:
    """Check that the training images that a stage reads are packed, as they are now.

    Raises
    ------
    BadParameter
        If the task does not train on single image files.
    DataError
        If the images are not packed, or have changed since.
    """
    recipe, folder = stage.run.recipe, stage.paths.data
    if stage.kind in {"prepare", "train"} and recipe.packed:
        if folder is None:
            raise DataError(f"packed must be 0 for generated data (got {recipe.packed}).")
        if recipe.packed < max(task.image_size):
            raise BadParameter(
                f"packed must be at least the side of the model's images, {max(task.image_size)} "
                f"(got {recipe.packed})."
            )
        split = task.load("train", Path(folder), stage.run.seed)
        read_packed(split, Path(folder), recipe.packed, stage.paths.data_states["train"])


def complaints(stages: Iterable[str]) -> list[str]:
    """Return the error messages of stages, each given as JSON."""
    found = (complaint(STAGES.parse(text, "a stage")) for text in stages)
    return [text for text in found if text]


def data_complaints(stages: Iterable[str]) -> list[str]:
    """Return the error messages of the data of stages, each given as JSON."""
    found = []
    for text in stages:
        stage = STAGES.parse(text, "a stage")
        assert stage.paths.data is not None
        try:
            make_task(stage).check_data(Path(stage.paths.data))
        except MixbenchError as error:
            found.append(f"{stage.identity.task.name}: {error}")
    return found
