"""Packed images: decoded and resized training images in one memory-mapped file.

Decoding a photograph takes a core a millisecond or more; reading it from a pack takes a fraction of
that. A pack lies in a hidden folder of the data, which no reader lists.
"""

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mixbench.errors import DataError
from mixbench.vision.images.augment import resize_short_side
from mixbench.vision.images.decode import read_image

PIXELS, INDEX, SIZES, STATE = "pixels.bin", "index.npz", "sizes.bin", "state.txt"
LOCK = "lock"
AT_ONCE = 256  # images in memory while packing


class Pack:
    """The packed images of a data folder.

    Parameters
    ----------
    root
        Folder of the data.
    short_side : pixels
        Short side of the packed images; smaller images have their own size.
    state
        State of the files that the pack must have; empty for any.

    Raises
    ------
    DataError
        If the data has no such pack, or if the files have changed since they were packed.
    """

    def __init__(self, root: Path, short_side: int, state: str = "") -> None:
        self.root, self.short_side = root, short_side
        self._folder = pack_folder(root, short_side)
        try:
            with np.load(self._folder / INDEX) as index:
                self._names, self._starts, self._sizes = (
                    index[name] for name in ("names", "starts", "sizes")
                )
                self.state = str(index["state"])
            there = (self._folder / PIXELS).stat().st_size
        except (OSError, ValueError, KeyError) as error:
            raise DataError(
                f"{root} has no images packed at {short_side}: {_remedy(root, short_side)}, or "
                f"leave out packed={short_side}."
            ) from error
        if state and state != self.state:
            raise DataError(
                f"The training images in {root} have changed since they were packed at "
                f"{short_side}: {_remedy(root, short_side)} again."
            )
        expected = int(_bytes_of(self._sizes).sum())
        if there != expected:
            raise DataError(
                f"{self._folder / PIXELS} must have {expected:,} bytes (got {there:,}): "
                f"{_remedy(root, short_side)} again."
            )

    def rows_of(self, paths: Sequence[bytes]) -> NDArray[np.int64]:
        """Return the rows of image files in the pack, (N,).

        Raises
        ------
        DataError
            If a file is not packed.
        """
        prefix = os.fsencode(self.root) + b"/"
        wanted = np.array([path.removeprefix(prefix) for path in paths])
        rows = np.searchsorted(self._names, wanted).clip(max=len(self._names) - 1)
        absent = np.flatnonzero(self._names[rows] != wanted)
        if len(absent):
            raise DataError(
                f"{os.fsdecode(paths[absent[0]])} is not packed at {self.short_side}: "
                f"{_remedy(self.root, self.short_side)} again."
            )
        return rows.astype(np.int64)

    def read(self, row: int) -> Tensor:
        """Return the pixels of an image, uint8 (3, H, W)."""
        height, width = self._sizes[row].tolist()
        start = int(self._starts[row])
        pixels = np.array(self._pixels[start : start + height * width * 3])  # torch may write to it
        return torch.from_numpy(pixels.reshape(height, width, 3)).permute(2, 0, 1)

    @cached_property
    def _pixels(self) -> NDArray[np.uint8]:
        # Read-only: a private mapping of more than the memory, as of ImageNet, is refused.
        return np.memmap(self._folder / PIXELS, np.uint8, "r")

    def __getstate__(self) -> dict[str, object]:
        """Return the state without the mapped file, of which pickling would make a copy."""
        return {name: value for name, value in self.__dict__.items() if name != "_pixels"}


def _remedy(root: Path, short_side: int) -> str:
    return f"run `mixbench data pack NAME --data {root} --short-side {short_side}`"


def pack_folder(root: Path, short_side: int) -> Path:
    """Return the folder of a pack."""
    return root / f".packed-{short_side}"


def write_pack(
    root: Path,
    paths: Sequence[Path],
    short_side: int,
    state: str,
    tell: Callable[[int, int], None],
) -> Path:
    """Pack images, continuing where an earlier attempt was stopped, and return the folder.

    Parameters
    ----------
    root
        Folder of the data.
    paths
        Paths of the images below `root`.
    short_side : pixels
        Short side to which larger images are resized.
    state
        State of the files, which tells whether a pack belongs to them.
    tell
        Progress callback, called with the number of packed images and the total.

    Raises
    ------
    DataError
        If an image cannot be read.
    """
    folder = pack_folder(root, short_side)
    names = np.array([os.fsencode(path.relative_to(root)) for path in paths])
    order = np.argsort(names)
    with _alone(folder), _Writing(folder, state) as writing, ThreadPoolExecutor() as pool:
        todo = [paths[i] for i in order[writing.number :].tolist()]
        for first in range(0, len(todo), AT_ONCE):
            some = todo[first : first + AT_ONCE]
            writing.add([*pool.map(lambda path: shortened(read_image(path), short_side), some)])
            tell(writing.number, len(paths))
        sizes = writing.finish()
        starts = np.cumsum(_bytes_of(sizes)) - _bytes_of(sizes)
        new = folder / f"{INDEX}.new"
        with new.open("wb") as file:
            np.savez(file, names=names[order], starts=starts, sizes=sizes, state=np.array(state))
            file.flush()
            os.fsync(file.fileno())
        new.rename(folder / INDEX)
    return folder


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes from writing the same pack.

    Raises
    ------
    DataError
        If another process writes it.
    """
    folder.mkdir(exist_ok=True)
    with (folder / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(f"Another process is packing the images in {folder}: wait.") from error
        yield


def _bytes_of(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the bytes of images whose heights and widths are given, (N,)."""
    found: NDArray[np.int64] = sizes.prod(1) * 3
    return found


def shortened(image: Tensor, short_side: int) -> Tensor:
    """Return an image whose shorter side is at most `short_side`, uint8 (3, h, w)."""
    larger = min(image.shape[-2:]) > short_side
    return resize_short_side(image, short_side) if larger else image


class _Writing:
    """The open files of a pack that is being written.

    Attributes
    ----------
    number
        Number of images that are written.
    """

    def __init__(self, folder: Path, state: str) -> None:
        self._folder = folder
        (folder / INDEX).unlink(missing_ok=True)
        noted = folder / STATE
        if not noted.exists() or noted.read_text(encoding="utf-8") != state:
            for name in (PIXELS, SIZES):
                (folder / name).unlink(missing_ok=True)
            noted.write_text(state, encoding="utf-8")

    def __enter__(self) -> Self:
        self._pixels = (self._folder / PIXELS).open("ab")
        self._noted = (self._folder / SIZES).open("a+b")
        # A killed attempt, or a copy that was cut off, may end in the middle of an image.
        ends = np.cumsum(_bytes_of(self._sizes()))
        self.number = int((ends <= self._pixels.tell()).sum())
        self._noted.truncate(self.number * 8)
        self._pixels.truncate(int(ends[self.number - 1]) if self.number else 0)
        return self

    def _sizes(self) -> NDArray[np.int64]:
        """Return the noted heights and widths, (N, 2)."""
        self._noted.seek(0)
        content = self._noted.read()
        found = np.frombuffer(content[: len(content) // 8 * 8], np.int32)
        return found.reshape(-1, 2).astype(np.int64)

    def finish(self) -> NDArray[np.int64]:
        """Wait until everything is on the disk; return the heights and widths, (N, 2)."""
        self._pixels.flush()
        os.fsync(self._pixels.fileno())
        return self._sizes()

    def add(self, images: Sequence[Tensor]) -> None:
        """Write images, and then their sizes."""
        for image in images:
            self._pixels.write(image.permute(1, 2, 0).contiguous().numpy().tobytes())
        self._pixels.flush()
        sizes = [[*image.shape[-2:]] for image in images]
        self._noted.write(np.array(sizes, np.int32).tobytes())
        self._noted.flush()
        self.number += len(sizes)

    def __exit__(self, *_: object) -> None:
        self._pixels.close()
        self._noted.close()
