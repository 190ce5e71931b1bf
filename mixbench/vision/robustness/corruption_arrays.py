"""Corrupted test images in CIFAR-C's format: one array per corruption, and one of labels."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from mixbench.contract import Part, Split
from mixbench.datasets.archives import Finding, digest_of
from mixbench.declare import CORRUPTIONS, Synthetic
from mixbench.errors import DataError
from mixbench.vision.images.splits import ResidentSplit
from mixbench.vision.robustness.corrupted import Corrupted
from mixbench.vision.robustness.corruptions import SEVERITIES, conditions
from mixbench.vision.robustness.synthetic import corrupted

Bytes = NDArray[np.uint8]


class CorruptionArrays(Corrupted):
    """Base class of tasks with one array of corrupted images per corruption.

    Attributes
    ----------
    array_folder
        Folder of the arrays, relative to the data folder.
    array_digests
        MD5 digests of the official arrays by file name.
    """

    array_folder: ClassVar[str]
    array_digests: ClassVar[Mapping[str, str]]

    def load(self, part: Part, folder: Path, seed: int) -> Split:  # noqa: ARG002  # only test exists
        """Read the images of the selected classes under every corruption."""
        inside, (height, width) = folder / self.array_folder, self.image_size
        labels = read_array(inside / "labels.npy", 1)
        severe = labels.reshape(SEVERITIES, -1)
        if not (severe == severe[0]).all():
            raise DataError(
                f"{inside / 'labels.npy'} must hold the same labels for each of the {SEVERITIES} "
                "severities."
            )
        chosen = np.flatnonzero(labels < self.num_classes)
        images = torch.empty(len(CORRUPTIONS), len(chosen), 3, height, width, dtype=torch.uint8)
        for place, name in zip(images, CORRUPTIONS, strict=True):
            array = read_array(inside / f"{name}.npy", 4)
            if array.shape != (len(labels), height, width, 3):
                raise DataError(
                    f"{inside / name}.npy must hold {len(labels)} images of {height} x {width} x 3 "
                    f"bytes (got {array.shape})."
                )
            place.copy_(torch.from_numpy(array[chosen]).permute(0, 3, 1, 2))
        classes = torch.from_numpy(labels[chosen].astype(np.int64)).repeat(len(CORRUPTIONS))
        under = conditions(len(chosen) // SEVERITIES)
        targets = torch.cat([classes[:, None], under], 1)
        return ResidentSplit(images.flatten(0, 1), targets, None, self.normalization)

    def verify(self, folder: Path) -> Iterator[Finding]:
        """Yield a finding for each array that says whether it is the official one."""
        for name, official in self.array_digests.items():
            path = folder / self.array_folder / name
            found = digest_of(path, official) if path.exists() else "missing"
            text = "as published" if found == official else f"must be MD5 {official} (got {found})"
            yield Finding(f"{self.array_folder}/{name}", found == official, text)

    def synthesize(self, folder: Path, amount: Synthetic) -> None:
        """Write corrupted synthetic test images of the base task in the same format."""
        images, classes = self.clean(folder, amount)
        inside = folder / self.array_folder
        inside.mkdir()
        np.save(inside / "labels.npy", np.tile(classes.numpy().astype(np.uint8), SEVERITIES))
        for name in CORRUPTIONS:
            changed = [
                corrupted(images, name, severity, amount.seed).permute(0, 2, 3, 1)
                for severity in range(1, SEVERITIES + 1)
            ]
            np.save(inside / f"{name}.npy", torch.cat(changed).numpy())


def read_array(path: Path, dimensions: int) -> Bytes:
    """Return the array of bytes in a file, memory-mapped.

    Raises
    ------
    DataError
        If the file is missing or does not hold an array of the expected form.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} must be an array written by numpy.save ({error}).") from error
    if array.dtype.kind not in "iu" or array.ndim != dimensions or len(array) % SEVERITIES:
        raise DataError(
            f"{path} must hold bytes in {dimensions} dimensions, equally many for each of the "
            f"{SEVERITIES} severities (got {array.dtype} of shape {array.shape})."
        )
    whole: Bytes = array
    return whole
