"""Handwritten digits: 1,797 real images of 8x8 pixels, in ten classes.

Data     Optical Recognition of Handwritten Digits (Alpaydin & Kaynak, 1998), test part, as
         scikit-learn ships it: digits.csv.gz, a row of 64 grey values in 0..16 and a class each
Licence  CC BY 4.0
Split    test: the last 597 images, other writers than most before them; validation: 10 % of every
         class of the first 1,200
Expect   protocol quick: 98 to 99 % top-1 without mixing, 10 to 20 s on one CPU core
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixbench.contract import ClassIndex, Part, Score, Split, Task
from mixbench.declare import Data, Fraction, Metric, Recipe
from mixbench.errors import DataError
from mixbench.metrics import calibration_error, cross_entropy, top1
from mixbench.models import ResidualNet
from mixbench.splits import ResidentSplit, random_crop, stratified_holdout
from mixbench.streams import generator

FILE = "digits.csv.gz"
SIDE, CLASSES, NUM_TRAIN = 8, 10, 1200
MEAN, DEVIATION = 0.3063, 0.3755  # of the training pixels, scaled to [0, 1]


class Digits(Task):
    """Classify handwritten digits.

    Parameters
    ----------
    holdout
        The share of the training images that is held out for validation.
    """

    version = 1
    data = Data(
        name="digits",
        version="UCI optdigits, test part",
        licence="CC BY 4.0",
        url="https://archive.ics.uci.edu/dataset/80",
        files={"digits.csv.gz": "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"},
        package="sklearn",
        folder="datasets/data",
    )
    metrics = (
        Metric("top1", "%", higher_is_better=True, primary=True),
        Metric("cross_entropy", "nats", higher_is_better=False),
        Metric("calibration_error", "%", higher_is_better=False),
    )
    num_classes = 10
    image_size = (8, 8)
    models = ("resnet8", "resnet14", "resnet20", "resnet32")
    protocols = {
        "quick": Recipe(model="resnet8", epochs=60),
        "paper": Recipe(model="resnet8", epochs=400),
    }

    def __init__(self, holdout: Fraction = 0.1) -> None:
        self.holdout = holdout

    def load(self, part: Part, folder: Path, seed: int) -> Split:
        """Read the test part, or the training images on one side of the split."""
        images, classes = read_digits(folder / FILE)
        if part == "test":
            chosen = torch.arange(len(classes)) >= NUM_TRAIN
        else:
            held = stratified_holdout(classes[:NUM_TRAIN], self.holdout, generator(seed, "split"))
            chosen = torch.zeros(len(classes), dtype=torch.bool)
            chosen[: len(held)] = held if part == "validation" else ~held
        images, classes = (images[chosen] / 16 - MEAN) / DEVIATION, classes[chosen]
        return ResidentSplit(images, classes, ClassIndex(classes, CLASSES), augment=shift)

    def synthesize(self, folder: Path) -> None:
        """Write blurred random glyphs, one per class, shifted and noisy, in the same layout."""
        rng = generator(0, "synthetic")
        glyphs = F.avg_pool2d(torch.rand(CLASSES, 1, 10, 10, generator=rng), 3, 1)
        low, high = glyphs.amin((1, 2, 3), keepdim=True), glyphs.amax((1, 2, 3), keepdim=True)
        classes = torch.randint(CLASSES, (NUM_TRAIN + 597,), generator=rng)
        images = random_crop(((glyphs - low) / (high - low))[classes], 1, rng)
        images = images + 0.2 * torch.randn(images.shape, generator=rng)
        rows = torch.cat([(16 * images).round().clamp(0, 16).flatten(1), classes[:, None]], 1)
        np.savetxt(folder / FILE, rows.numpy(), fmt="%d", delimiter=",")

    def build(self, model: str) -> nn.Module:
        """Return a residual net with a last map of 4x4, so that a 4x4 grid has a cell each."""
        depth = int(model.removeprefix("resnet"))
        return ResidualNet(depth, channels=1, classes=CLASSES, strides=(1, 2, 1))

    def new_classifier(self, feature_dim: int) -> nn.Module:
        """Return a linear classifier of pooled features."""
        return nn.Linear(feature_dim, CLASSES)

    def loss(self, out: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy of every image, (B,)."""
        return F.cross_entropy(out, targets, reduction="none")

    def score(self, outputs: Tensor, targets: Tensor) -> dict[str, Score]:
        """Return top-1 accuracy, cross-entropy and calibration error."""
        return {
            "top1": top1(outputs, targets),
            "cross_entropy": cross_entropy(outputs, targets),
            "calibration_error": calibration_error(outputs, targets),
        }


def shift(images: Tensor, rng: torch.Generator) -> Tensor:
    """Return every image moved by up to one pixel, black where it left."""
    return random_crop(images, 1, rng, fill=-MEAN / DEVIATION)


def read_digits(path: Path) -> tuple[Tensor, Tensor]:
    """Return the images of a file, (N, 1, 8, 8) float32 in 0..16, and their classes, (N,) int64.

    Raises
    ------
    DataError
        If the file is not a table of that form.
    """
    try:
        table = np.loadtxt(path, delimiter=",", ndmin=2)
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{path} must be a table of numbers, gzipped CSV ({error}).") from error
    if table.shape[1] != SIDE * SIDE + 1 or len(table) <= NUM_TRAIN:
        raise DataError(
            f"{path} must have more than {NUM_TRAIN} rows of {SIDE * SIDE + 1} numbers "
            f"(got {table.shape[0]} of {table.shape[1]})."
        )
    grey, classes = table[:, :-1], table[:, -1]
    if not ((grey >= 0) & (grey <= 16)).all() or not np.isin(classes, np.arange(CLASSES)).all():
        raise DataError(f"{path} must hold grey values in 0..16 and classes in 0..{CLASSES - 1}.")
    images = torch.from_numpy(grey.astype(np.float32)).view(-1, 1, SIDE, SIDE)
    return images, torch.from_numpy(classes.astype(np.int64))
