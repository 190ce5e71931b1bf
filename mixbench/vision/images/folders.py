"""Images in a folder for each class."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from mixbench.errors import DataError
from mixbench.vision.images.decode import read_image

SUFFIXES = frozenset({".jpeg", ".jpg", ".png", ".bmp", ".webp"})


class Listing(NamedTuple):
    """Image files with their classes.

    Attributes
    ----------
    paths
        Of the N images.
    classes : (N,) int64
    """

    paths: list[Path]
    classes: Tensor

    def only(self, chosen: Tensor) -> "Listing":
        """Return some of the files, by a (N,) bool."""
        kept = torch.nonzero(chosen).flatten().tolist()
        return Listing([self.paths[i] for i in kept], self.classes[chosen])


def class_folders(root: Path) -> list[str]:
    """Return the names of the folders in a folder, sorted: the order of the classes.

    Raises
    ------
    DataError
        If there is none.
    """
    names = sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    if not names:
        raise DataError(f"{root} must be a folder with a folder of images for each class.")
    return names


def unreadable(roots: Sequence[Path], tell: Callable[[int, int], None]) -> tuple[int, list[str]]:
    """Open every image under some folders; return how many there are, and what is wrong with whom.

    Parameters
    ----------
    tell
        Told how many were opened, of how many.
    """
    paths = [path for root in roots for path in root.rglob("*") if path.suffix.lower() in SUFFIXES]

    def fault(path: Path) -> str:
        try:
            read_image(path)
        except DataError as error:
            return str(error)
        return ""

    faults: list[str] = []
    with ThreadPoolExecutor() as pool:
        for number, text in enumerate(pool.map(fault, sorted(paths)), 1):
            faults += [text] if text else []
            tell(number, len(paths))
    return len(paths), faults


def list_images(root: Path, names: Sequence[str], inside: str = "") -> Listing:
    """Return the image files of some classes, in the order of classes and file names.

    Parameters
    ----------
    inside
        Of a class's folder, where its images lie in a folder of their own.

    Raises
    ------
    DataError
        If a class has no image.
    """
    paths: list[Path] = []
    counts = []
    for name in names:
        folder = root / name / inside
        found = folder.iterdir() if folder.is_dir() else ()
        files = sorted(path for path in found if path.suffix.lower() in SUFFIXES)
        if not files:
            raise DataError(f"The class folder {folder} must hold images (got none).")
        paths += files
        counts.append(len(files))
    return Listing(paths, torch.arange(len(names)).repeat_interleave(torch.tensor(counts)))
