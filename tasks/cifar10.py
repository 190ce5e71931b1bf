"""CIFAR-10: 60,000 photographs of 32x32 pixels in 10 classes.

Data     Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009: the Python
         version, cifar-10-batches-py/ with five training batches and a test batch
Licence  none stated by the authors
Split    test: the official 10,000 test images; validation: 10 % of every class of the official
         50,000 training images
Recipe   paper: the recipe of Cascante-Bonilla et al., BMVC 2021, arXiv:2106.09011, §4.1
Expect   protocol paper, resnet32: 92.6 % top-1 without mixing (the paper)
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mixbench.contract import ClassIndex, Normalization, Part, Split
from mixbench.datasets.archives import digest_of
from mixbench.datasets.digests import equal_files
from mixbench.declare import (
    SMALL_NETS,
    TOP1,
    Archive,
    Count,
    CountOrZero,
    Data,
    Fraction,
    Metric,
    Recipe,
    Synthetic,
    Weights,
    table_row,
)
from mixbench.errors import DataError
from mixbench.streams import generator
from mixbench.vision.images.augment import CropFlip
from mixbench.vision.images.folders import check_same_classes, class_folders, list_images
from mixbench.vision.images.pickled import read_pickle, write_pickle
from mixbench.vision.images.scenes import looks, one_thing, paint, shuffled_classes
from mixbench.vision.images.splits import ResidentSplit, read_all
from mixbench.vision.tasks.classification import Classification, check_classes

SIDE = 32


class PythonVersion(NamedTuple):
    """File names and dictionary keys of the Python version of a CIFAR data set."""

    folder: str
    meta: str
    names_key: str
    labels_key: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    normalization: Normalization


class Cifar10(Classification):
    """Classify small photographs into ten classes.

    Parameters
    ----------
    classes
        Number of classes; the first ones in the order of the data set are used.
    holdout
        Fraction of the official training images that is held out for validation.
    per_class
        Number of training images of each class that are used, drawn by the seed; 0 uses all. The
        images that are held out are among them.
    weights
        Initial weights of training: ``random``, ``timm`` or ``timm:TAG`` (weights that timm
        publishes), ``hf-hub:ORG/NAME`` (those of a model of timm on the Hugging Face Hub) or a
        file.
    """

    version = 1
    data = Data(
        name="cifar10",
        version="python version, 2009",
        licence="none stated by the authors",
        url="https://www.cs.toronto.edu/~kriz/cifar.html",
        files={
            "cifar-10-batches-py/batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
            "cifar-10-batches-py/data_batch_1": "c99cafc152244af753f735de768cd75f",
            "cifar-10-batches-py/data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "cifar-10-batches-py/data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "cifar-10-batches-py/data_batch_4": "634d18415352ddfa80567beed471001a",
            "cifar-10-batches-py/data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
            "cifar-10-batches-py/test_batch": "40351d587109b95175f43aff81a1287e",
        },
        parts={
            "cifar-10-batches-py/data_batch_1": "train",
            "cifar-10-batches-py/data_batch_2": "train",
            "cifar-10-batches-py/data_batch_3": "train",
            "cifar-10-batches-py/data_batch_4": "train",
            "cifar-10-batches-py/data_batch_5": "train",
            "cifar-10-batches-py/test_batch": "test",
        },
        archives=(
            Archive(
                "cifar-10-python.tar.gz",
                "c58f30108f718f92721af3b95e74349a",
                "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
                170498071,
            ),
        ),
        num_train=50000,
        num_test=10000,
    )
    synthetic = Synthetic(train=400, test=100, protocols=("quick",))
    by_protocol = {"few": {"per_class": 100}}
    added = ("weights",)
    metrics: tuple[Metric, ...] = TOP1
    models: ClassVar[tuple[str, ...]] = SMALL_NETS
    takes_timm = True
    protocols = {
        "paper": Recipe(model="resnet32", epochs=400),
        "quick": Recipe(model="resnet8", epochs=10),
        "few": Recipe(model="resnet8", epochs=200, memory_format="channels_last", tail=3),
    }
    references = (
        *table_row(
            "arXiv:2106.09011", "Table 1, MobileNetV2", "mobilenet_v2",
            {
                "none": (90.55, 0.04), "mixup": (91.39, 0.02), "manifold_mixup": (91.79, 0.11),
                "cutmix_16": (91.93, 0.04), "random_patchmix": (92.64, 0.02),
                "guided_patchmix": (93.85, 0.07),
            },
            num_seeds=3,
        ),
        *table_row(
            "arXiv:2106.09011", "Table 1, ResNet32", "resnet32",
            {
                "none": (92.61, 0.03), "mixup": (93.40, 0.02), "manifold_mixup": (94.14, 0.05),
                "cutmix_16": (93.92, 0.06), "random_patchmix": (94.13, 0.07),
                "guided_patchmix": (94.93, 0.03),
            },
            num_seeds=3,
        ),
        *table_row(
            "arXiv:2106.09011", "Table 1, ResNet50", "resnet50",
            {
                "none": (93.70, 0.06), "mixup": (94.75, 0.03), "manifold_mixup": (95.24, 0.06),
                "cutmix_16": (94.89, 0.05), "random_patchmix": (95.04, 0.08),
                "guided_patchmix": (95.48, 0.02),
            },
            num_seeds=3,
        ),
        *table_row(
            "arXiv:2106.09011", "Table 1, ResNet56*", "preact_resnet56",
            {
                "none": (93.95, 0.04), "mixup": (94.42, 0.06), "manifold_mixup": (94.15, 0.03),
                "cutmix_16": (93.92, 0.07), "random_patchmix": (94.62, 0.09),
                "guided_patchmix": (94.80, 0.07),
            },
            num_seeds=3,
        ),
        *table_row(
            "arXiv:2106.09011", "Table 1, ResNet164*", "preact_resnet164",
            {
                "none": (94.06, 0.07), "mixup": (95.12, 0.03), "manifold_mixup": (95.55, 0.08),
                "cutmix_16": (95.72, 0.07), "random_patchmix": (95.81, 0.12),
                "guided_patchmix": (96.06, 0.04),
            },
            num_seeds=3,
        ),
    )  # fmt: skip

    _layout = PythonVersion(
        folder="cifar-10-batches-py",
        meta="batches.meta",
        names_key="label_names",
        labels_key="labels",
        train=("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"),
        test=("test_batch",),
        normalization=Normalization((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    )

    def __init__(
        self,
        classes: Count = 10,
        holdout: Fraction = 0.1,
        per_class: CountOrZero = 0,
        weights: Weights = "random",
    ) -> None:
        super().__init__(classes, (SIDE, SIDE), self._layout.normalization)
        self.holdout, self.per_class, self.weights = holdout, per_class, weights

    def load(self, part: Part, folder: Path, seed: int) -> Split:
        """Read the test images, or the training or validation images of the training batches."""
        layout = self._layout
        batches = layout.test if part == "test" else layout.train
        images, classes = self.read(folder / layout.folder, batches)
        chosen = classes < self.num_classes
        if part != "test":
            kept = torch.nonzero(chosen).flatten()
            chosen = torch.zeros_like(chosen)
            chosen[kept[self.in_part(part, classes[kept], seed)]] = True
        images, classes = images[chosen], classes[chosen]
        index = ClassIndex(classes, self.num_classes)
        return ResidentSplit(images, classes, index, self.normalization, CropFlip(4, flip=0.5))

    def class_names(self, folder: Path) -> list[str]:
        """Return the names of the classes that are used."""
        inside = folder / self._layout.folder
        return self.names_of(self._all_names(inside), inside)

    def _all_names(self, folder: Path) -> list[str]:
        path, key = folder / self._layout.meta, self._layout.names_key
        names = read_pickle(path).get(key)
        if not isinstance(names, list):
            raise DataError(f"{path} must hold a list {key!r}.")
        return [str(name) for name in names]

    def read(self, folder: Path, batches: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        """Return the images of some batches, (N, 3, 32, 32) uint8, and their classes, (N,) int64.

        Raises
        ------
        DataError
            If a file does not have the format of the Python version of the data set.
        """
        known = self._all_names(folder)
        self.names_of(known, folder)
        images, classes, labels_key = [], [], self._layout.labels_key
        for batch in batches:
            content = read_pickle(folder / batch)
            rows = content.get("data", np.empty(0))
            labels = np.asarray(content.get(labels_key, ()))
            if np.ndim(rows) != 2 or rows.shape[1] != 3 * SIDE * SIDE:  # a table
                raise DataError(
                    f"{folder / batch} must hold 'data' in rows of {3 * SIDE * SIDE} bytes (got "
                    f"{np.shape(rows)}; the keys of the file are {sorted(content)})."
                )
            if labels.shape != (len(rows),) or labels.dtype.kind not in "iu":
                raise DataError(
                    f"{folder / batch} must hold {labels_key!r} with an integer for each of its "
                    f"{len(rows)} images (got {labels.dtype} of shape {labels.shape})."
                )
            classes.append(torch.from_numpy(labels.astype(np.int64)))
            check_classes(classes[-1], len(known), folder / batch)
            images.append(torch.from_numpy(rows).view(-1, 3, SIDE, SIDE))
        return torch.cat(images), torch.cat(classes)

    def convert(self, source: Path, folder: Path) -> None:
        """Write the Python version from image files in ``train/CLASS`` and ``test/CLASS``.

        Raises
        ------
        DataError
            If the folders do not have the classes and the numbers of images of the data set, an
            image is not 32x32, or one is in both folders.
        """
        layout, names = self._layout, class_folders(source / "train")
        check_same_classes(source / "train", source / "test")
        if all(name.isdecimal() for name in names):
            names.sort(key=int)
        parts = {part: list_images(source / part, names) for part in ("train", "test")}
        train, test = (listing.paths for listing in parts.values())
        for found, number, what in (
            (len(names), self.num_classes, "class folders"),
            (len(train), self.data.num_train, "training images"),
            (len(test), self.data.num_test, "test images"),
        ):
            if found != number:
                raise DataError(f"{source} must have {number} {what} (got {found}).")
        if equal := equal_files(train, test, partial(digest_of, like="")):
            first, second = equal[0]
            raise DataError(f"{first} and {second} must not be the same image.")
        inside = folder / layout.folder
        inside.mkdir()
        write_pickle(inside / layout.meta, {layout.names_key: names})
        for batches, listing in zip((layout.train, layout.test), parts.values(), strict=True):
            rows = read_all(listing.paths, self.image_size).flatten(1)
            self._write(inside, batches, rows, listing.classes)

    def synthesize(self, folder: Path, amount: Synthetic) -> None:
        """Write synthetic images of one object each in the same pickled format."""
        layout, kinds = self._layout, looks(self.num_classes)
        inside = folder / layout.folder
        inside.mkdir()
        write_pickle(inside / layout.meta, {layout.names_key: [kind.name for kind in kinds]})
        parts = ((amount.train, layout.train), (amount.test, layout.test))
        for number, (per_class, names) in enumerate(parts):
            rng = generator(amount.seed, "synthetic", number)
            classes = shuffled_classes(self.num_classes, per_class, rng)
            painted = paint(one_thing(classes, rng), kinds, self.image_size, rng)
            rows = torch.cat([scene.images for scene in painted]).flatten(1)
            self._write(inside, names, rows, classes)

    def _write(self, folder: Path, batches: Sequence[str], rows: Tensor, classes: Tensor) -> None:
        """Write images, (N, 3072) uint8, and their classes, (N,), in the given batches."""
        parts = (rows.tensor_split(len(batches)), classes.tensor_split(len(batches)))
        for name, data, labels in zip(batches, *parts, strict=True):
            content = {"data": data.numpy(), self._layout.labels_key: labels.tolist()}
            write_pickle(folder / name, content)
