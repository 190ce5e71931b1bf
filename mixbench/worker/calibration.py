"""How long an image takes in training and in prediction, measured in a few steps."""

from collections.abc import Callable
from time import perf_counter
from typing import NamedTuple

import torch
from torch import Tensor

from mixbench.storage.spec import Stage
from mixbench.train.setup import MEMORY
from mixbench.worker.job import make_task

STEPS, SECONDS = 30, 20.0  # of each network; it stops at the first that is reached
PIXELS_ON_CPU = 4 * 224**2  # of the images of a step, without a GPU


class ImageTimes(NamedTuple):
    """Times per image.

    Attributes
    ----------
    train_s : seconds
        Forward and backward pass and optimizer step.
    predict_s : seconds
        Forward pass.
    """

    train_s: float
    predict_s: float


def image_times(stage: Stage, device: torch.device) -> ImageTimes | None:
    """Measure the model of a stage with random images of its task's size.

    Returns None for a model that needs more than images.

    Parameters
    ----------
    stage
        A training or evaluation; its recipe gives the precision, the memory format and, on a GPU,
        the batch size.
    device
        Device to measure on.
    """
    task, recipe = make_task(stage), stage.run.recipe
    memory = MEMORY[recipe.memory_format]
    model = task.build(stage.run.model).to(device).to(memory_format=memory)
    height, width = task.image_size
    number = recipe.batch_size
    if device.type != "cuda":
        number = min(number, max(PIXELS_ON_CPU // (height * width), 2))
    channels = getattr(task, "channels", 3)
    images = torch.randn(number, channels, height, width, device=device)
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

    try:
        train_s = _seconds(step, device) / number
        model.eval()
        with torch.no_grad():
            return ImageTimes(train_s, _seconds(forward, device) / number)
    except (AttributeError, RuntimeError, TypeError, ValueError):  # of the model
        return None


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
