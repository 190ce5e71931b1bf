"""NUS-WIDE as it is published: the official lists, and the two others that people compare with.

Each layout reads and writes which images belong to a part and which concepts they show. The images
lie in folders of their own, and are the same photographs in all three.
"""

import ast
import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from mixbench.errors import DataError
from mixbench.vision.images.lists import read_lines, write_lines

CONCEPTS = "ConceptsList/Concepts81.txt"
TABLE = "nus_wid_data.csv"
COLUMNS = ["filepath", "label", "split_name"]


class Listed(NamedTuple):
    """The images of a part.

    Attributes
    ----------
    files
        In the folder of the data.
    targets : (N, K) int8
        1 for a concept that the image shows, else 0.
    names
        Of the concepts.
    """

    files: list[str]
    targets: Tensor
    names: list[str]


class Layout(Protocol):
    """One way in which lists and labels lie in files."""

    images: str

    def read(self, folder: Path, *, test: bool) -> Listed:
        """Return the images of the training or the test part.

        Raises
        ------
        DataError
            If a file is not what the layout demands.
        """

    def write(self, folder: Path, train: Listed, test: Listed) -> None:
        """Write the lists and labels of generated images."""


class Official:
    """Chua et al.'s own: a list for each part, and a file of 0 and 1 for each concept and part."""

    images = "Flickr"

    def read(self, folder: Path, *, test: bool) -> Listed:
        """Return the listed images; their paths are written with backslashes."""
        lines = read_lines(folder / f"ImageList/{_part(test=test)}Imagelist.txt")
        files = [f"{self.images}/{line.strip().replace(chr(92), '/')}" for line in lines]
        names = [line.strip() for line in read_lines(folder / CONCEPTS)]
        columns = [_bits(_labels(folder, name, test=test), len(files)) for name in names]
        return Listed(files, torch.stack(columns, 1), names)

    def write(self, folder: Path, train: Listed, test: Listed) -> None:
        """Write the list of concepts, the lists of images and a file of labels for each concept."""
        for place in ("ConceptsList", "ImageList", "Groundtruth/TrainTestLabels"):
            (folder / place).mkdir(parents=True)
        write_lines(folder / CONCEPTS, train.names)
        for listed, is_test in ((train, False), (test, True)):
            lines = [f.removeprefix(f"{self.images}/").replace("/", "\\") for f in listed.files]
            write_lines(folder / f"ImageList/{_part(test=is_test)}Imagelist.txt", lines)
            for name, column in zip(listed.names, listed.targets.T.tolist(), strict=True):
                write_lines(_labels(folder, name, test=is_test), map(str, column))


class Asl:
    """Alibaba-MIIL/ASL's: one table of the images that show a concept, split 70 to 30."""

    images = "images"

    def read(self, folder: Path, *, test: bool) -> Listed:
        """Return the images of the rows that are of the part; the concepts are sorted."""
        rows, part = _rows(folder / TABLE), "val" if test else "train"
        names = sorted({name for _, found, _ in rows for name in found})
        column = {name: k for k, name in enumerate(names)}
        own = [(file, found) for file, found, split in rows if split == part]
        targets = torch.zeros(len(own), len(column), dtype=torch.int8)
        for row, (_, found) in zip(targets, own, strict=True):
            row[[column[name] for name in found]] = 1
        files = [f"{self.images}/{_inside(file, self.images)}" for file, _ in own]
        return Listed(files, targets, names)

    def write(self, folder: Path, train: Listed, test: Listed) -> None:
        """Write the table; images without concepts are not in it."""
        with (folder / TABLE).open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows(_row(train.names, *one, "train") for one in _labelled(train))
            writer.writerows(_row(test.names, *one, "val") for one in _labelled(test))


class Spml:
    """Cole et al.'s (single-positive multi-label): what was still online in 2020, as arrays."""

    images = "Flickr"

    def read(self, folder: Path, *, test: bool) -> Listed:
        """Return what two arrays say: paths (N,) and labels (N, K).

        The concepts are numbered: their names are not published with the arrays.

        Raises
        ------
        DataError
            If they are not of one length, or hold anything else.
        """
        paths, labels = (folder / name for name in _arrays(test=test))
        files, targets = _array(paths), _array(labels)
        if files.ndim != 1 or files.dtype.kind != "U" or targets.shape[:1] != files.shape:
            raise DataError(
                f"{paths} must hold a path, and {labels} a row, for each image (got "
                f"{files.dtype} {files.shape} and {targets.dtype} {targets.shape})."
            )
        if targets.ndim != 2 or not np.isin(targets, (0, 1)).all():  # a matrix
            raise DataError(f"{labels} must be a matrix of 0 and 1.")
        found = [f"{self.images}/{_inside(str(file), self.images)}" for file in files]
        names = [f"concept {k}" for k in range(targets.shape[1])]
        return Listed(found, torch.from_numpy(targets.astype(np.int8)), names)

    def write(self, folder: Path, train: Listed, test: Listed) -> None:
        """Write the arrays of both parts."""
        for listed, is_test in ((train, False), (test, True)):
            paths, labels = _arrays(test=is_test)
            files = [file.removeprefix(f"{self.images}/") for file in listed.files]
            np.save(folder / paths, np.array(files))
            np.save(folder / labels, listed.targets.numpy().astype(np.float64))


LAYOUTS: Mapping[str, Layout] = {"official": Official(), "asl": Asl(), "spml": Spml()}


def _part(*, test: bool) -> str:
    return "Test" if test else "Train"


def _labels(folder: Path, name: str, *, test: bool) -> Path:
    return folder / f"Groundtruth/TrainTestLabels/Labels_{name}_{_part(test=test)}.txt"


def _arrays(*, test: bool) -> tuple[str, str]:
    part = "val" if test else "train"
    return f"formatted_{part}_images.npy", f"formatted_{part}_labels.npy"


def _inside(file: str, folder: str) -> str:
    """Return a path below a folder, whether or not it begins with that folder."""
    return file.replace("\\", "/").removeprefix(f"{folder}/")


def _bits(path: Path, number: int) -> Tensor:
    """Return a file's lines, each 0 or 1, (number,) int8."""
    lines = [line.strip() for line in read_lines(path)]
    wrong = next((i for i, line in enumerate(lines, 1) if line not in {"0", "1"}), 0)
    if wrong:
        raise DataError(f"{path}, line {wrong}: must be 0 or 1 (got {lines[wrong - 1]!r}).")
    if len(lines) != number:
        raise DataError(
            f"{path} must have a line for each of the {number} listed images (got {len(lines)})."
        )
    return torch.tensor([line == "1" for line in lines], dtype=torch.int8)


def _labelled(listed: Listed) -> Iterator[tuple[str, list[int]]]:
    """Yield the images that show a concept, with the places of all that they show."""
    for file, row in zip(listed.files, listed.targets, strict=True):
        if row.any():
            yield file, torch.nonzero(row).flatten().tolist()


def _row(names: Sequence[str], file: str, places: list[int], part: str) -> list[str]:
    return [file, str([names[place] for place in places]), part]


def _rows(path: Path) -> list[tuple[str, list[str], str]]:
    """Return the rows of the table: an image's path, its concepts and its part."""
    lines = list(csv.reader(read_lines(path)))
    return [_parsed(path, n, row) for n, row in enumerate(lines, 1) if row != COLUMNS]


def _parsed(path: Path, number: int, row: list[str]) -> tuple[str, list[str], str]:
    """Return what a row of the table says."""
    with suppress(ValueError, SyntaxError):
        file, text, part = row
        found = ast.literal_eval(text)
        named = isinstance(found, list) and all(isinstance(name, str) for name in found)
        if named and part in {"train", "val"}:
            return file, found, part
    raise DataError(
        f"{path}, line {number}: must be an image's path, a list of its concepts and train or val "
        f"(got {','.join(row)!r})."
    )


def _array(path: Path) -> "np.ndarray[tuple[int, ...], np.dtype[np.generic]]":
    """Return an array from its file; one that is pickled is refused, not run."""
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} must be a plain array of numpy ({error}).") from error
    if not isinstance(found, np.ndarray):
        raise DataError(f"{path} must be one array of numpy.")
    return found
