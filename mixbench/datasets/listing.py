"""Listing of data folders: one rule for readers, identity, counts and verification.

A name that begins with a dot is hidden and never read: operating systems, file managers and
notebooks leave such files and folders (``.DS_Store``, ``._photo.jpg``, ``.ipynb_checkpoints``).
Links are followed.
"""

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from mixbench.errors import DataError

# The formats that torchvision.datasets.ImageFolder reads.
IMAGE_SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp",
})  # fmt: skip


class ListedFile(NamedTuple):
    """A file of a data folder.

    Attributes
    ----------
    name
        Path relative to the listed folder, with slashes.
    size : bytes
        Size of the file.
    modified_ns : nanoseconds
        Modification time of the file.
    """

    name: str
    size: int
    modified_ns: int

    @property
    def suffix(self) -> str:
        """End of the file name in lower case, from its last dot on; empty if it has none."""
        return suffix_of(self.name)


def suffix_of(name: str) -> str:
    """Return the end of a file name in lower case, from its last dot on."""
    return os.path.splitext(name)[1].lower()  # noqa: PTH122  # pathlib is slow for a million names


def is_image(name: str) -> bool:
    """Return whether a file name has the suffix of an image format."""
    return suffix_of(name) in IMAGE_SUFFIXES


def visible(folder: Path) -> list["os.DirEntry[str]"]:
    """Return the entries of a folder that are not hidden, sorted by name.

    Raises
    ------
    DataError
        If the folder cannot be read, or an entry is a link to something that does not exist.
    """
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{folder} cannot be read ({error.strerror}).") from error
    for entry in found:
        if entry.is_symlink() and not os.path.exists(entry.path):  # noqa: PTH110  # of an os.DirEntry
            raise DataError(
                f"{entry.path} is a link to {os.readlink(entry.path)}, which does not exist: "  # noqa: PTH115
                "restore it or remove the link."
            )
    return sorted(found, key=lambda entry: entry.name)


def subfolders(folder: Path) -> list[str]:
    """Return the sorted names of a folder's visible subfolders."""
    return [entry.name for entry in visible(folder) if entry.is_dir()]


def files_in(folder: Path, prefix: str = "") -> Iterator[ListedFile]:
    """Yield the visible files under a folder, sorted by name in each subfolder.

    Parameters
    ----------
    folder
        Folder that is listed with all of its subfolders.
    prefix
        Text before the name of each file.

    Raises
    ------
    DataError
        If a folder cannot be read or a link has no target.
    """
    for entry in visible(folder):
        if entry.is_dir():
            if entry.is_symlink() and folder.resolve().is_relative_to(Path(entry.path).resolve()):
                raise DataError(f"{entry.path} is a link to a folder that contains it: remove it.")
            yield from files_in(folder / entry.name, f"{prefix}{entry.name}/")
        else:
            found = entry.stat()
            if not stat.S_ISREG(found.st_mode):  # a pipe would wait for ever
                continue
            yield ListedFile(prefix + entry.name, found.st_size, found.st_mtime_ns)


def named_images(root: Path, names: Iterable[str], where: Path) -> list[Path]:
    """Return the paths of the images that a list names.

    Parameters
    ----------
    root
        Folder to which the names are relative.
    names
        Names in the list.
    where
        File of the list, for messages.

    Raises
    ------
    DataError
        If a name occurs twice, is hidden, lies outside `root`, or has no suffix of an image format.
    """
    known: set[PurePosixPath] = set()
    paths = []
    for name in names:
        path = PurePosixPath(name)
        parts = path.parts
        if path in known:
            raise DataError(f"{where} must name each image once (got {name} twice).")
        if not is_image(name) or any(part.startswith(".") or part == "/" for part in parts):
            raise DataError(
                f"{where} must name images inside {root}, in a format that is read "
                f"({', '.join(sorted(IMAGE_SUFFIXES))}), and no hidden ones (got {name!r})."
            )
        known.add(path)
        paths.append(root / name)
    return paths
