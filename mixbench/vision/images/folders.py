"""Image files stored in one folder per class."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from mixbench.datasets.listing import IMAGE_SUFFIXES, files_in, subfolders
from mixbench.errors import DataError
from mixbench.vision.images.decode import read_image


class Listing(NamedTuple):
    """Image files with their classes.

    Attributes
    ----------
    paths
        Paths of the N images.
    classes : (N,) int64
        Class index of each image.
    """

    paths: list[Path]
    classes: Tensor

    def only(self, chosen: Tensor) -> "Listing":
        """Return the files that a boolean mask, (N,), selects."""
        kept = torch.nonzero(chosen).flatten().tolist()
        return Listing([self.paths[i] for i in kept], self.classes[chosen])


def class_folders(root: Path) -> list[str]:
    """Return the sorted names of a folder's visible subfolders, which are the classes in order.

    Raises
    ------
    DataError
        If the folder does not exist or has no subfolder.
    """
    names = subfolders(root) if root.is_dir() else []
    if not names:
        raise DataError(f"{root} must be a folder with one subfolder of images per class.")
    return names


def check_same_classes(train: Path, test: Path) -> None:
    """Check that two folders have the same class folders.

    Raises
    ------
    DataError
        If one of them has images but no class folders, or lacks a class of the other.
    """
    names = {root: class_folders(root) for root in (train, test)}
    for root, other in ((train, test), (test, train)):
        missing = sorted(set(names[other]) - set(names[root]))
        if missing:
            raise DataError(
                f"{root} must have the same class folders as {other}; it lacks {len(missing)}, "
                f"such as {missing[0]}."
            )


def unreadable(roots: Sequence[Path], tell: Callable[[int, int], None]) -> tuple[int, list[str]]:
    """Decode every image under some folders; return their number and one message per bad file.

    Parameters
    ----------
    roots
        Folders, which are searched recursively.
    tell
        Progress callback, called after each image with the number of decoded images and the total.
    """
    paths = [
        root / file.name
        for root in roots
        for file in files_in(root)
        if file.suffix in IMAGE_SUFFIXES
    ]

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
    """Return the image files of the given classes, ordered by class and then by path.

    As in torchvision's ImageFolder, images in subfolders of a class folder belong to the class.

    Parameters
    ----------
    root
        Folder with one subfolder per class.
    names
        Names of the class folders, in the order of the class indices.
    inside
        Subfolder of every class folder that contains the images; "" for the class folder itself.

    Raises
    ------
    DataError
        If a class has no image.
    """
    paths: list[Path] = []
    counts = []
    for name in names:
        folder = root / name / inside
        found = files_in(folder) if folder.is_dir() else ()
        files = [folder / file.name for file in found if file.suffix in IMAGE_SUFFIXES]
        if not files:
            raise DataError(f"The class folder {folder} must contain images (got none).")
        paths += files
        counts.append(len(files))
    return Listing(paths, torch.arange(len(names)).repeat_interleave(torch.tensor(counts)))
