"""Corrupted test images in ImageNet-C's layout: CORRUPTION/SEVERITY/CLASS/*.JPEG."""

from functools import partial
from itertools import product
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from mixbench.contract import Part, Split
from mixbench.declare import CORRUPTIONS, Synthetic
from mixbench.errors import DataError
from mixbench.vision.images.augment import resize
from mixbench.vision.images.folders import class_folders, list_images
from mixbench.vision.images.lists import first_names
from mixbench.vision.images.splits import StreamedSplit
from mixbench.vision.robustness.corrupted import Corrupted
from mixbench.vision.robustness.corruptions import SEVERITIES, conditions
from mixbench.vision.robustness.synthetic import corrupted

QUALITY = 95  # of synthetic files: high, so that JPEG artefacts come only from that corruption


class CorruptionFolders(Corrupted):
    """Base class of tasks with corrupted image files by corruption, severity and class."""

    def load(self, part: Part, folder: Path, seed: int) -> Split:  # noqa: ARG002  # only test exists
        """List the images of the selected classes under every corruption."""
        first = folder / CORRUPTIONS[0] / "1"
        names = first_names(class_folders(first), self.num_classes, self.data.name, first)
        paths: list[Path] = []
        classes: list[Tensor] = []
        for name, severity in product(CORRUPTIONS, range(1, SEVERITIES + 1)):
            listing = list_images(folder / name / str(severity), names)
            if classes and not torch.equal(listing.classes, classes[0]):
                raise DataError(
                    f"{folder / name / str(severity)} must hold as many images of every class as "
                    f"{first}: extract the data set's archives again."
                )
            paths += listing.paths
            classes.append(listing.classes)
        targets = torch.cat([torch.cat(classes)[:, None], conditions(len(classes[0]))], 1)
        fit = partial(square, side=self.test_size[0])
        return StreamedSplit(paths, targets, None, self.normalization, fit=fit)

    def synthesize(self, folder: Path, amount: Synthetic) -> None:
        """Write corrupted synthetic test images of the base task in the same layout."""
        images, classes = self.clean(folder, amount)
        for name, severity in product(CORRUPTIONS, range(1, SEVERITIES + 1)):
            place = folder / name / str(severity)
            for wnid in classes.unique().tolist():
                (place / f"n{wnid:08}").mkdir(parents=True)
            changed = corrupted(images, name, severity, amount.seed).permute(0, 2, 3, 1).numpy()
            for number, (row, wnid) in enumerate(zip(changed, classes.tolist(), strict=True)):
                path = place / f"n{wnid:08}" / f"val_{number:08}.JPEG"
                Image.fromarray(row).save(path, quality=QUALITY)


def square(image: Tensor, side: int) -> Tensor:
    """Return an image unchanged if it is a square of that side, resized to one otherwise."""
    return image if image.shape[1:] == (side, side) else resize(image, (side, side))
