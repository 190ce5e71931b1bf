"""What a method works with before training, in a stage of its own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from mixbench.contract.method import Method
from mixbench.contract.task import Task
from mixbench.declare import Recipe


class Trained(NamedTuple):
    """A finished cell's model with its method, in evaluation mode."""

    model: nn.Module
    method: Method


@dataclass(frozen=True)
class Preparation:
    """What `Method.prepare` works with.

    Attributes
    ----------
    model
        The name of the model that will be trained.
    folder
        Of the data, in the official layout, for `Task.load`.
    trained
        The finished cells that the method declared it needs, by role.
    scratch
        A folder that survives an interruption, for a state to continue from.
    results
        A folder whose files are kept with the method's buffers.
    report
        Shows how far the work is: ``report(done, of, numbers to show)``.
    """

    task: Task
    model: str
    recipe: Recipe
    seed: int
    folder: Path
    device: torch.device
    trained: Mapping[str, Trained]
    scratch: Path
    results: Path
    report: Callable[[int, int, Mapping[str, float]], None]
