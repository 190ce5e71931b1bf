"""Read and write the three published versions of NUS-WIDE's image lists and labels.

Each layout reads and writes the images of a split and the concepts that they show. Images are
stored separately, and are the same photographs in all three layouts.
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
from mixbench.vision.images.lists import check_unique, read_lines, write_lines

CONCEPTS = "ConceptsList/Concepts81.txt"
TABLE = "nus_wid_data.csv"
COLUMNS = ["filepath", "label", "split_name"]


class Listed(NamedTuple):
    """Images of a split with their labels.

    Attributes
    ----------
    files
        Paths of the N images relative to the data folder.
    targets : (N, K) int8
        1 for a concept that the image shows, else 0.
    names
        Names of the K concepts.
    """

    files: list[str]
    targets: Tensor
    names: list[str]


class Layout(Protocol):
    """Interface of a file format of lists and labels."""

    images: str

    def list_of(self, *, test: bool) -> str:
        """Return the path of the file that lists the images of a split."""

    def read(self, folder: Path, *, test: bool) -> Listed:
        """Return the images of the training or the test split.

        Raises
        ------
        DataError
            If a file does not have the format of the layout.
        """

    def write(self, folder: Path, train: Listed, test: Listed) -> None:
        """Write the lists and labels of synthetic images."""


class Official:
    """Format of Chua et al.: a list per split, and a file of 0 and 1 per concept and split."""

    images = "Flickr"

    def list_of(self, *, test: bool) -> str:
        """Return the path of the text file of the split."""
        return f"ImageList/{_part(test=test)}Imagelist.txt"

    def read(self, folder: Path, *, test: bool) -> Listed:
        """Return the listed images; the paths in the lists have backslashes."""
        lines = read_lines(folder / self.list_of(test=test))
        files = [f"{self.images}/{line.strip().replace(chr(92), '/')}" for line in lines]
        names = [line.strip() for line in read_lines(folder / CONCEPTS)]
        check_unique(names, "concept", folder / CONCEPTS)
        columns = [_bits(_labels(folder, name, test=test), len(files)) for name in names]
        return Listed(files, torch.stack(columns, 1), names)

    def write(self, folder: Path, train: Listed, test: Listed) -> None:
        """Write the list of concepts, the image lists and a label file per concept and split."""
        for place in ("ConceptsList", "ImageList", "Groundtruth/TrainTestLabels"):
            (folder / place).mkdir(parents=True)
        write_lines(folder / CONCEPTS, train.names)
        for listed, is_test in ((train, False), (test, True)):
            lines = [f.removeprefix(f"{self.images}/").replace("/", "\\") for f in listed.files]
            write_lines(folder / f"ImageList/{_part(test=is_test)}Imagelist.txt", lines)
            for name, column in zip(listed.names, listed.targets.T.tolist(), strict=True):
                write_lines(_labels(folder, name, test=is_test), map(str, column))


class Asl:
    """Format of Alibaba-MIIL/ASL: one table of images that show a concept, split 70 to 30."""

    images = "images"

    def list_of(self, *, test: bool) -> str:  # noqa: ARG002  # one file for both
        """Return the path of the table."""
        return TABLE

    def read(self, folder: Path, *, test: bool) -> Listed:
        """Return the images of the table that belong to the split; the concepts are sorted."""
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
        """Write the table without the images that show no concept."""
        with (folder / TABLE).open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows(_row(train.names, *one, "train") for one in _labelled(train))
            writer.writerows(_row(test.names, *one, "val") for one in _labelled(test))


class Spml:
    """Format of Cole et al. (single-positive multi-label): arrays of the images online in 2020."""

    images = "Flickr"

    def list_of(self, *, test: bool) -> str:
        """Return the path of the array of image paths."""
        return _arrays(test=test)[0]

    def read(self, folder: Path, *, test: bool) -> Listed:
        """Return the images of two arrays: paths, (N,), and labels, (N, K).

        The concepts have numbers as names, because the arrays are published without names.

        Raises
        ------
        DataError
            If the arrays differ in length or hold anything else.
        """
        paths, labels = (folder / name for name in _arrays(test=test))
        files, targets = _array(paths), _array(labels)
        if files.ndim != 1 or files.dtype.kind != "U" or targets.shape[:1] != files.shape:
            raise DataError(
                f"{paths} must hold a path and {labels} must hold a row for each image (got "
                f"{files.dtype} {files.shape} and {targets.dtype} {targets.shape})."
            )
        if targets.ndim != 2 or not np.isin(targets, (0, 1)).all():  # rows: images
            raise DataError(f"{labels} must be a matrix of 0 and 1.")
        found = [f"{self.images}/{_inside(str(file), self.images)}" for file in files]
        names = [f"concept {k}" for k in range(targets.shape[1])]
        return Listed(found, torch.from_numpy(targets.astype(np.int8)), names)

    def write(self, folder: Path, train: Listed, test: Listed) -> None:
        """Write the arrays of both splits."""
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
    """Return a path relative to a folder, removing the folder's name if the path begins with it."""
    return file.replace("\\", "/").removeprefix(f"{folder}/")


def _bits(path: Path, number: int) -> Tensor:
    """Read a file whose lines are 0 or 1, (number,) int8."""
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
    """Yield the images that show a concept, with the column indices of their concepts."""
    for file, row in zip(listed.files, listed.targets, strict=True):
        if row.any():
            yield file, torch.nonzero(row).flatten().tolist()


def _row(names: Sequence[str], file: str, places: list[int], part: str) -> list[str]:
    return [file, str([names[place] for place in places]), part]


def _rows(path: Path) -> list[tuple[str, list[str], str]]:
    """Return the rows of the table: the path of an image, its concepts and its split."""
    lines = list(csv.reader(read_lines(path)))
    return [_parsed(path, n, row) for n, row in enumerate(lines, 1) if row != COLUMNS]


def _parsed(path: Path, number: int, row: list[str]) -> tuple[str, list[str], str]:
    """Parse a row of the table."""
    with suppress(ValueError, SyntaxError):
        file, text, part = row
        found = ast.literal_eval(text)
        named = isinstance(found, list) and all(isinstance(name, str) for name in found)
        if named and part in {"train", "val"}:
            return file, found, part
    raise DataError(
        f"{path}, line {number}: must be the path of an image, a list of its concepts and train or "
        f"val (got {','.join(row)!r})."
    )


def _array(path: Path) -> "np.ndarray[tuple[int, ...], np.dtype[np.generic]]":
    """Read an array from a file; pickled objects are refused, because loading them runs code."""
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"{path} must hold a NumPy array without pickled objects ({error})."
        ) from error
    if not isinstance(found, np.ndarray):
        raise DataError(f"{path} must hold one NumPy array in npy format (got an npz archive).")
    return found
