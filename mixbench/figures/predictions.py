"""Data of a finished cell's test part for figures: predictions, class names and images."""

import json
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from mixbench.records.schema import Record
from mixbench.storage.store import Store
from mixbench.worker.job import data_folder, make_task

TRUE, FOUND, WRONG = "#e02424", "#5bef5b", "#f59e0b"
ROWS = 6  # images shown, evenly spaced over the test part
Picture = NDArray[np.float32]


def predictions_of(store: Store, record: Record) -> dict[str, Tensor]:
    """Return a cell's predictions for all test items, with the targets."""
    (path,) = (artifact.path for artifact in record.artifacts if artifact.role == "predictions")
    return load_file(store.root / path)


def names_of(store: Store, record: Record) -> Sequence[str]:
    """Return the class names, or the words of the vocabulary, of a cell's task."""
    (path,) = (artifact.path for artifact in record.artifacts if artifact.role == "metrics")
    names: Sequence[str] = json.loads((store.root / path).read_text(encoding="utf-8"))["classes"]
    return names


def shown_of(number: int) -> Tensor:
    """Return the indices of the test items to show, out of `number`, (n,) int64."""
    return torch.linspace(0, number - 1, min(ROWS, number)).long()


def pictures_of(store: Store, record: Record, index: Tensor) -> list[Picture]:
    """Return test images as the model sees them, each (h, w, 3) and scaled to [0, 1]."""
    key = next(stage.key for stage in record.stages if stage.kind == "evaluate")
    stage = store.manifest(key).spec.stage
    split = make_task(stage).load("test", data_folder(stage, store), record.seed)
    images = split.read(index, None)
    low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    return list(((images - low) / (high - low)).permute(0, 2, 3, 1).numpy())


def bare(axes: Axes) -> None:
    """Remove the ticks and spines of axes that show an image or text."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
