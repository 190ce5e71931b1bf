"""How long an image takes in training, search and prediction, measured in a few steps."""

from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import NamedTuple

import torch
from torch import Tensor

from mixbench.contract import Backbone, Task
from mixbench.errors import MixbenchError
from mixbench.storage.spec import Stage
from mixbench.train.evaluation import batch_size
from mixbench.train.setup import MEMORY
from mixbench.vision.models.trial import OF_THE_MODEL
from mixbench.worker.environment import configure_torch
from mixbench.worker.job import build, make_task

STEPS, SECONDS = 30, 20.0  # of each network; it stops at the first that is reached
PIXELS_ON_CPU = 4 * 224**2  # of the images of a step, without a GPU


class ImageTimes(NamedTuple):
    """Times per image.

    Attributes
    ----------
    train_s : seconds
        Forward and backward pass and optimizer step; 0 if the stage does not train.
    search_s : seconds
        Forward pass in the precision of the recipe; 0 if nothing is searched.
    predict_s : seconds
        Prediction by the task, with its attacks if it has any.
    """

    train_s: float
    search_s: float
    predict_s: float


def image_times(stage: Stage, device: torch.device, *, searches: bool) -> ImageTimes | None:
    """Measure the model of a stage with random images of its task's size.

    torch is configured as for the stage. Returns None for a model that needs more than images, as
    for detection and captions.

    Parameters
    ----------
    stage
        A training or evaluation; its recipe gives the precision, the memory format and, on a GPU,
        the batch size.
    device
        Device to measure on.
    searches
        Whether the time of a search is asked for.
    """
    task, recipe = make_task(stage), stage.run.recipe
    configure_torch(recipe)
    memory = MEMORY[recipe.memory_format]
    model = build(stage, task).to(device).to(memory_format=memory)
    if hasattr(model, "loss"):  # of boxes or words
        return None
    height, width = task.image_size
    number = recipe.batch_size
    if device.type != "cuda":
        number = min(number, max(PIXELS_ON_CPU // (height * width), 2))
    channels = getattr(task, "channels", 3)
    # In [0, 1], as the images that a task attacks.
    images = torch.rand(number, channels, height, width, device=device)
    half = recipe.precision == "bfloat16"
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)

    def forward() -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, half):
            output = model(images)
        return _sum_of(output.out) + _sum_of(output.features)

    def step() -> None:
        optimizer.zero_grad()
        forward().backward()
        optimizer.step()

    few = images[: batch_size(task)]
    try:
        train_s = _seconds(step, device) / number if stage.kind == "train" else 0.0
        model.eval()
        with torch.no_grad():
            search_s = _seconds(forward, device) / number if searches else 0.0
            predict_s = _seconds(_prediction(task, model, few), device) / len(few)
    except (*OF_THE_MODEL, MixbenchError):
        return None
    return ImageTimes(train_s, search_s, predict_s)


def _prediction(task: Task, model: Backbone, images: Tensor) -> Callable[[], object]:
    """Return a function that predicts images; their targets are classes, or begin with classes."""
    predict = partial(task.predict, model, lambda output: output.out)
    targets = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    try:
        predict(images[:1], targets[:1])
    except IndexError:
        targets = torch.stack([targets, targets], 1)
    return partial(predict, images, targets)


def _sum_of(tensor: Tensor) -> Tensor:
    """Return the sum of a tensor in float32."""
    return tensor.float().sum()


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """Return the time that work takes, after one run that warms up."""
    work()
    start, done = perf_counter(), 0
    while done < STEPS and (perf_counter() - start < SECONDS or not done):
        work()
        done += 1
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (perf_counter() - start) / done
