"""Handwritten digits: 1,797 greyscale images of 8x8 pixels in 10 classes.

Data     Optical Recognition of Handwritten Digits (Alpaydin & Kaynak, 1998), test part, as
         distributed with scikit-learn: digits.csv.gz, whose rows hold 64 grey values in 0..16 and a
         class
Licence  CC BY 4.0
Split    test: the last 597 images, mostly by other writers than the first 1,200; validation: 10 %
         of every class of the first 1,200 images
Expect   protocol quick: 98 to 99 % top-1 without mixing, 10 to 20 s on one CPU core
"""

import gzip
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mixbench.contract import Backbone, ClassIndex, Normalization, Part, Split
from mixbench.declare import (
    TOP1,
    Data,
    Fraction,
    Recipe,
    Synthetic,
)
from mixbench.errors import BadParameter, DataError
from mixbench.streams import generator
from mixbench.vision.images.augment import CropFlip
from mixbench.vision.images.splits import ResidentSplit
from mixbench.vision.models.build import sized
from mixbench.vision.models.residual import ResidualNet
from mixbench.vision.tasks.classification import Classification

FILE = "digits.csv.gz"
SIDE, CLASSES, NUM_TRAIN, WHITE = 8, 10, 1200, 16
PIXELS = Normalization((0.3063,), (0.3755,))  # mean and std of the training images


class Digits(Classification):
    """Classify handwritten digits.

    Parameters
    ----------
    holdout
        Fraction of the first 1,200 images that is held out for validation.
    """

    version = 2
    data = Data(
        name="digits",
        version="UCI optdigits, test part",
        licence="CC BY 4.0",
        url="https://archive.ics.uci.edu/dataset/80",
        files={"digits.csv.gz": "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"},
        package="sklearn",
        folder="datasets/data",
        num_train=1200,
        num_test=597,
    )
    metrics = TOP1
    synthetic = Synthetic(train=120, test=60)
    models = ("resnet8", "resnet14", "resnet20", "resnet32", "small_test_vit")
    protocols = {
        "quick": Recipe(model="resnet8", epochs=60),
        "paper": Recipe(model="resnet8", epochs=400),
    }

    channels = 1

    def __init__(self, holdout: Fraction = 0.1) -> None:
        super().__init__(CLASSES, (SIDE, SIDE), PIXELS)
        self.holdout = holdout

    def load(self, part: Part, folder: Path, seed: int) -> Split:
        """Read the test images, or the training or validation images of the first 1,200."""
        images, classes = read_digits(folder / FILE)
        chosen = torch.arange(len(classes)) >= NUM_TRAIN
        if part != "test":
            chosen = torch.zeros(len(classes), dtype=torch.bool)
            chosen[:NUM_TRAIN] = self.in_part(part, classes[:NUM_TRAIN], seed)
        images, classes = images[chosen], classes[chosen]
        index = ClassIndex(classes, CLASSES)
        return ResidentSplit(
            images, classes, index, self.normalization, CropFlip(1), max_value=WHITE
        )

    def synthesize(self, folder: Path, amount: Synthetic) -> None:
        """Write noisy, shifted copies of blurred random glyphs, one per class, in the same format.

        Raises
        ------
        BadParameter
            If the number of training images is not 1,200, which the format requires.
        """
        if amount.train * CLASSES != NUM_TRAIN:
            needed = NUM_TRAIN // CLASSES
            raise BadParameter(
                f"digits must have {needed} training images per class (got {amount.train})."
            )
        rng = generator(amount.seed, "synthetic")
        glyphs = F.avg_pool2d(torch.rand(CLASSES, 1, 10, 10, generator=rng), 3, 1)
        low, high = glyphs.amin((1, 2, 3), keepdim=True), glyphs.amax((1, 2, 3), keepdim=True)
        number = CLASSES * (amount.train + amount.test)
        classes = torch.randint(CLASSES, (number,), generator=rng)
        shift = CropFlip(1)
        images = ((glyphs - low) / (high - low))[classes]
        images = shift.crop_batch(images, shift.draw(number, rng))
        images = images + 0.2 * torch.randn(images.shape, generator=rng)
        rows = torch.cat([(WHITE * images).round().clamp(0, WHITE).flatten(1), classes[:, None]], 1)
        with gzip.GzipFile(folder / FILE, "wb", mtime=0) as file:  # makes the file reproducible
            np.savetxt(file, rows.numpy(), fmt="%d", delimiter=",")

    def build(self, model: str) -> Backbone:
        """Return a ResNet whose last feature map is 4x4, or a small ViT of 8x8 patches."""
        if model == "small_test_vit":
            return super().build(model)
        depth = int(model.removeprefix("resnet"))
        net = ResidualNet(depth, channels=1, classes=CLASSES, strides=(1, 2, 1))
        return sized(net, 1, self.image_size)


def read_digits(path: Path) -> tuple[Tensor, Tensor]:
    """Return the images of a file, (N, 1, 8, 8) uint8 in 0..16, and their classes, (N,) int64.

    Raises
    ------
    DataError
        If the file is not a table of that form.
    """
    try:
        table = np.loadtxt(path, delimiter=",", ndmin=2)
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{path} must be a gzipped CSV file of numbers ({error}).") from error
    if table.shape[1] != SIDE * SIDE + 1 or len(table) <= NUM_TRAIN:
        raise DataError(
            f"{path} must have more than {NUM_TRAIN} rows of {SIDE * SIDE + 1} numbers "
            f"(got {table.shape[0]} rows of {table.shape[1]})."
        )
    grey, classes = table[:, :-1], table[:, -1]
    if not ((grey >= 0) & (grey <= WHITE)).all() or not np.isin(classes, np.arange(CLASSES)).all():
        raise DataError(f"{path} must hold grey values in 0..16 and classes in 0..{CLASSES - 1}.")
    images = torch.from_numpy(grey.astype(np.uint8)).view(-1, 1, SIDE, SIDE)
    return images, torch.from_numpy(classes.astype(np.int64))
