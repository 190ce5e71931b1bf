"""Checks that methods and models fit their tasks, before any training starts.

They run in another process because they import torch, which the launcher does not.
"""

from collections.abc import Iterable
from pathlib import Path

from mixbench.contract import Backbone, Evaluation, Method, Part, Split, Task, attach
from mixbench.errors import BadParameter, DataError, MixbenchError
from mixbench.plan.workload import may_be_few
from mixbench.storage.spec import STAGES, Stage
from mixbench.train.criterion import criterion
from mixbench.train.gradients import check_accumulation
from mixbench.train.optimizer import parameter_groups
from mixbench.train.setup import check_fills_a_batch
from mixbench.vision.images.policies import transform_of
from mixbench.vision.images.splits import limited, read_packed, with_augmentation
from mixbench.vision.models.trial import refused_as, try_size
from mixbench.vision.robustness.corrupted import Corrupted
from mixbench.worker.job import build, make_method, make_task


class Splits:
    """Splits that several checks read, each loaded once: ImageNet's lists a million files."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int, Part], Split] = {}

    def load(self, stage: Stage, task: Task, part: Part) -> Split:
        """Return a part of the data of a stage, whose task this is."""
        assert stage.paths.data is not None
        key = stage.data_key, stage.run.seed, part
        if key not in self._known:
            self._known[key] = task.load(part, Path(stage.paths.data), stage.run.seed)
        return self._known[key]


def complaint(stage: Stage, splits: Splits) -> str:
    """Return the error that a stage's method or model raises for its task, or an empty text."""
    try:
        task, run = make_task(stage), stage.run
        held_out = None
        # An evaluation has only a test split.
        if stage.paths.data and not isinstance(task, Evaluation) and task.has_validation:
            held_out = splits.load(stage, task, "validation")
        if run.recipe.limit and isinstance(task, Corrupted):
            raise BadParameter(
                "limit must be 0: every image is tested under every corruption (got "
                f"{run.recipe.limit})."
            )
        method = make_method(stage)
        method.check(task, held_out)
        check_accumulation(method, run.recipe)
        check_packed(stage, task, splits)
        model = build(stage, task)
        attach(method, model, task)
        check_test_size(task, model, run.model)
        if stage.kind in {"prepare", "train"}:
            check_recipe(stage, task, model, method, splits)
        if not task.needs.keys() & stage.inputs.keys():  # they are not trained yet
            task.start(model, {})
    except MixbenchError as error:
        return f"{stage.label}: {error}"
    return ""


def check_test_size(task: Task, model: Backbone, name: str) -> None:
    """Check that a model takes the images of validation and test, which may be larger.

    Raises
    ------
    UsageError
        If it does not.
    """
    if task.test_size != task.image_size:
        height, width = task.test_size
        with refused_as(f"{name} does not take test images of {height} x {width} pixels"):
            try_size(model, getattr(task, "channels", 3), task.test_size)


def check_recipe(stage: Stage, task: Task, model: Backbone, method: Method, splits: Splits) -> None:
    """Check that a training can do what its recipe asks for.

    Raises
    ------
    MixbenchError
        If it cannot.
    """
    recipe = stage.run.recipe
    criterion(task, recipe)
    if recipe.drop_path:
        model.set_drop_path(recipe.drop_path)
    parameter_groups(model, method, recipe)
    if stage.paths.data and (recipe.auto_augment or recipe.random_erasing or recipe.limit):
        split = splits.load(stage, task, "validation" if task.has_validation else "train")
        limited(split, recipe.limit)
        with_augmentation(split, recipe.auto_augment, recipe.random_erasing)
    elif recipe.auto_augment:
        transform_of(recipe.auto_augment, task.image_size)
    if stage.paths.data and may_be_few(stage):
        train = splits.load(stage, task, "train")
        check_fills_a_batch(limited(train, recipe.limit), recipe)


def check_packed(stage: Stage, task: Task, splits: Splits) -> None:
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
        side = max(*task.image_size, *task.test_size)
        if recipe.packed < side:
            raise BadParameter(
                f"packed must be at least the side of the model's images, {side} (got "
                f"{recipe.packed})."
            )
        split = splits.load(stage, task, "train")
        read_packed(split, Path(folder), recipe.packed, stage.paths.data_states["train"])


def complaints(stages: Iterable[str]) -> list[str]:
    """Return the error messages of stages, each given as JSON."""
    splits = Splits()
    found = (complaint(STAGES.parse(text, "a stage"), splits) for text in stages)
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
