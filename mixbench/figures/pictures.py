"""A classification task made of a few pictures, each its own class, to preview methods on."""

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch

from mixbench.contract import Backbone, ClassIndex, Part, Split
from mixbench.datasets.listing import IMAGE_SUFFIXES, files_in, is_image
from mixbench.errors import UsageError
from mixbench.vision.images.augment import central
from mixbench.vision.images.decode import read_image
from mixbench.vision.images.splits import ResidentSplit
from mixbench.vision.models.build import sized
from mixbench.vision.models.residual import ResidualNet
from mixbench.vision.tasks.classification import Classification

SIDE = 128  # side in pixels of the central square that is shown
BUNDLED = (  # photographs in packages that mixbench depends on
    ("sklearn", "datasets/images/china.jpg", "temple"),
    ("sklearn", "datasets/images/flower.jpg", "flower"),
    ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg", "Grace Hopper"),
)


class Pictures(Classification):
    """Classification of a few pictures; every part of the data holds all of them.

    Parameters
    ----------
    paths
        Paths of the picture files.
    names
        Names of the pictures; by default, the names of their files without suffixes.
    """

    version = 1

    def __init__(self, paths: Sequence[Path], names: Sequence[str] | None = None) -> None:
        super().__init__(len(paths), (SIDE, SIDE))
        self.paths = paths
        self.names = names or [path.stem for path in paths]

    def load(self, part: Part, folder: Path, seed: int) -> Split:  # noqa: ARG002  # all are equal
        """Read the central squares of the pictures."""
        fit = central(SIDE)
        images = torch.stack([fit(read_image(path)) for path in self.paths])
        classes = torch.arange(len(images))
        return ResidentSplit(images, classes, ClassIndex(classes, len(images)), self.normalization)

    def class_names(self, folder: Path) -> Sequence[str]:  # noqa: ARG002  # known without it
        """Return the names of the pictures."""
        return self.names

    def build(self, model: str) -> Backbone:  # noqa: ARG002  # there is one
        """Return a small residual network whose last feature map is 16 x 16."""
        net = ResidualNet(8, channels=3, classes=self.num_classes, strides=(2, 2, 2))
        return sized(net, 3, self.image_size)


def bundled() -> Pictures:
    """Return three photographs from packages that are always installed."""
    paths, names = [], []
    for package, inside, name in BUNDLED:
        spec = find_spec(package)
        folder = Path((spec and spec.origin) or os.devnull).parent
        paths.append(folder / inside)
        names.append(name)
    return Pictures(paths, names)


def pictures_in(folder: Path) -> Pictures:
    """Return the pictures in a folder and its subfolders.

    Raises
    ------
    UsageError
        If there are fewer than two.
    """
    found = [folder / file.name for file in files_in(folder) if is_image(file.name)]
    if len(found) < 2:  # a mix needs two
        raise UsageError(
            f"{folder} must hold at least two pictures with one of the suffixes "
            f"{', '.join(sorted(IMAGE_SUFFIXES))} (got {len(found)})."
        )
    return Pictures(found)
