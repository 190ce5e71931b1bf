"""CIFAR-10-C: the test images of CIFAR-10 under fifteen corruptions at five severities.

Data     Hendrycks & Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and
         Perturbations, ICLR 2019, arXiv:1903.12261: CIFAR-10-C/ with an array for each corruption,
         10,000 images for each severity, and labels.npy; four more corruptions in it are not read
Licence  CC BY 4.0
Split    test: 750,000 images; the model is trained by cifar10 with the same method and seed
Differs  mCE is the mean error, not divided by another model's, as is usual on CIFAR
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from mixbench.archives import Finding, digest_of
from mixbench.contract import Part, Split
from mixbench.declare import CORRUPTED, Archive, Data, Synthetic, Weights
from mixbench.errors import DataError
from mixbench.images.splits import ResidentSplit
from mixbench.robustness.corrupted import Corrupted
from mixbench.robustness.corruptions import CORRUPTIONS, SEVERITIES, conditions
from mixbench.robustness.generated import corrupted

SIDE = 32
Bytes = NDArray[np.uint8]


class Arrays(NamedTuple):
    """Where the arrays lie, and the MD5 of the official ones by the names of their files."""

    folder: str
    digests: dict[str, str]


class Cifar10C(Corrupted):
    """Score classifiers of CIFAR-10 on corrupted images.

    Parameters
    ----------
    weights
        Which model is scored: what training with the same method and seed ended with
        (``pretrained``), what timm publishes, or that in a file.
    """

    version = 1
    evaluates = "cifar10"
    data = Data(
        name="cifar10_c",
        version="1, 2019",
        licence="CC BY 4.0",
        url="https://zenodo.org/records/2535967",
        files={"CIFAR-10-C/labels.npy": "c439b113295ed5254878798ffe28fd54"},
        trees={"CIFAR-10-C": 0},
        archives=(
            Archive(
                "CIFAR-10-C.tar",
                "56bf5dcef84df0e2308c6dcbcbbd8499",
                "https://zenodo.org/records/2535967/files/CIFAR-10-C.tar",
                2918471680,
            ),
        ),
    )
    metrics = CORRUPTED
    of_alexnet = False

    _arrays = Arrays(
        folder="CIFAR-10-C",
        digests={
            "brightness.npy": "0a81ef75e0b523c3383219c330a85d48",
            "contrast.npy": "3c8262171c51307f916c30a3308235a8",
            "defocus_blur.npy": "7d1322666342a0702b1957e92f6254bc",
            "elastic_transform.npy": "9421657c6cd452429cf6ce96cc412b5f",
            "fog.npy": "7b397314b5670f825465fbcd1f6e9ccd",
            "frost.npy": "31f6ab3bce1d9934abfb0cc13656f141",
            "gaussian_noise.npy": "ecaf8b9a2399ffeda7680934c33405fd",
            "glass_blur.npy": "7361fb4019269e02dbf6925f083e8629",
            "impulse_noise.npy": "2090e01c83519ec51427e65116af6b1a",
            "jpeg_compression.npy": "2b9cc4c864e0193bb64db8d7728f8187",
            "motion_blur.npy": "fffa5f852ff7ad299cfe8a7643f090f4",
            "pixelate.npy": "0f14f7e2db14288304e1de10df16832f",
            "shot_noise.npy": "3a7239bb118894f013d9bf1984be7f11",
            "snow.npy": "bb238de8555123da9c282dea23bd6e55",
            "zoom_blur.npy": "6ea8e63f1c5cdee1517533840641641b",
        },
    )

    def __init__(self, weights: Weights = "pretrained") -> None:
        super().__init__(weights)

    def load(self, part: Part, folder: Path, seed: int) -> Split:  # noqa: ARG002  # all is the test part
        """Read the images of the classes that take part, under every corruption."""
        inside = folder / self._arrays.folder
        labels = read_array(inside / "labels.npy", 1)
        severe = labels.reshape(SEVERITIES, -1)
        if not (severe == severe[0]).all():
            raise DataError(
                f"{inside / 'labels.npy'} must hold the same labels for each of the {SEVERITIES} "
                "severities."
            )
        chosen = np.flatnonzero(labels < self.num_classes)
        images = torch.empty(len(CORRUPTIONS), len(chosen), 3, SIDE, SIDE, dtype=torch.uint8)
        for place, name in zip(images, CORRUPTIONS, strict=True):
            array = read_array(inside / f"{name}.npy", 4)
            if array.shape != (len(labels), SIDE, SIDE, 3):
                raise DataError(
                    f"{inside / name}.npy must hold {len(labels)} images of {SIDE} x {SIDE} x 3 "
                    f"bytes (got {array.shape})."
                )
            place.copy_(torch.from_numpy(array[chosen]).permute(0, 3, 1, 2))
        classes = torch.from_numpy(labels[chosen].astype(np.int64)).repeat(len(CORRUPTIONS))
        under = conditions(len(chosen) // SEVERITIES)
        targets = torch.cat([classes[:, None], under], 1)
        return ResidentSplit(images.flatten(0, 1), targets, None, self.pixels)

    def verify(self, folder: Path) -> Iterator[Finding]:
        """Yield whether each array is the official one."""
        for name, official in self._arrays.digests.items():
            path = folder / self._arrays.folder / name
            found = digest_of(path, official) if path.exists() else "missing"
            text = "as published" if found == official else f"must be {official} (got {found})"
            yield Finding(f"{self._arrays.folder}/{name}", found == official, text)

    def synthesize(self, folder: Path, amount: Synthetic) -> None:
        """Write the subject's generated test images, corrupted, as the same arrays."""
        images, classes = self.clean(folder, amount)
        inside = folder / self._arrays.folder
        inside.mkdir()
        np.save(inside / "labels.npy", np.tile(classes.numpy().astype(np.uint8), SEVERITIES))
        for name in CORRUPTIONS:
            changed = [
                corrupted(images, name, severity, amount.seed).permute(0, 2, 3, 1)
                for severity in range(1, SEVERITIES + 1)
            ]
            np.save(inside / f"{name}.npy", torch.cat(changed).numpy())


def read_array(path: Path, dimensions: int) -> Bytes:
    """Return the array of bytes in a file, which stays on the disk until it is read.

    Raises
    ------
    DataError
        If there is none.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} must be an array as numpy writes it ({error}).") from error
    if array.dtype.kind not in "iu" or array.ndim != dimensions or len(array) % SEVERITIES:
        raise DataError(
            f"{path} must hold bytes in {dimensions} dimensions, as many for each of the "
            f"{SEVERITIES} severities (got {array.dtype} of shape {array.shape})."
        )
    whole: Bytes = array
    return whole
