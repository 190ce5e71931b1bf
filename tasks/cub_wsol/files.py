"""Read the files of CUB-200-2011 and the metadata of clovaai/wsolevaluation.

CUB's boxes are left, top, width and height as decimal numbers. The boxes of wsolevaluation are the
integer first and last columns and rows, clipped at the image edges; its metadata also holds the
image sizes. Both follow from CUB's files and the image headers.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mixbench.datasets.archives import Finding
from mixbench.datasets.listing import named_images
from mixbench.errors import DataError
from mixbench.vision.images.decode import image_size, read_image
from mixbench.vision.images.lists import check_unique, read_lines
from mixbench.vision.localization.pixel_precision import MASK_WORDS, packed
from mixbench.vision.tasks.classification import Classification, check_classes

ROOT = "CUB_200_2011"
FILES = ("images", "image_class_labels", "train_test_split", "bounding_boxes")
MASKS = "segmentations"
HALF = 127
THREADS = 8


class Birds(NamedTuple):
    """Annotated images in the order of CUB's files.

    Attributes
    ----------
    names
        Paths of the N images relative to the image folder, which has a subfolder for each class.
    classes : (N,) int64
        Classes of the images, starting from 0.
    train : (N,) bool
        Whether the image belongs to the official training split.
    boxes : (N, 4) float64
        Left, top, width and height of the bounding box in pixels.
    """

    names: list[str]
    classes: Tensor
    train: Tensor
    boxes: NDArray[np.float64]

    def only(self, chosen: Tensor) -> "Birds":
        """Return the images that a mask, (N,) bool, selects."""
        kept = torch.nonzero(chosen).flatten().tolist()
        names = [self.names[i] for i in kept]
        return Birds(names, self.classes[chosen], self.train[chosen], self.boxes[chosen.numpy()])


class Located(NamedTuple):
    """Images with their sizes and ground-truth boxes in the format of the evaluation.

    Attributes
    ----------
    names
        Paths of the N images relative to the image folder.
    classes : (N,) int64
        Classes of the images, starting from 0.
    sizes : (N, 2) int64
        Width and height of the images in pixels.
    boxes : (N, n, 4) int64
        First column, first row, last column and last row of each box. Images with fewer than n
        boxes repeat their first box.
    """

    names: list[str]
    classes: Tensor
    sizes: NDArray[np.int64]
    boxes: NDArray[np.int64]


def read_birds(root: Path) -> Birds:
    """Return the annotations of all images from CUB's files.

    Raises
    ------
    DataError
        If a line has another format, or an image has no class, split or box.
    """
    tables = {name: _table(root / f"{name}.txt") for name in FILES}
    ids = list(tables["images"])
    for name in FILES[1:]:
        missing = next((i for i in ids if i not in tables[name]), None)
        if missing is not None:
            image = " ".join(tables["images"][missing])
            raise DataError(f"{root / name}.txt must have a line for image {missing}, {image}.")
    names = [" ".join(tables["images"][i]) for i in ids]
    classes, train, boxes = (
        _numbers(root / f"{name}.txt", [tables[name][i] for i in ids], ids, width)
        for name, width in zip(FILES[1:], (1, 1, 4), strict=True)
    )
    _check_values(root / "image_class_labels.txt", classes, ids, "a whole number", classes % 1 == 0)
    _check_values(root / "train_test_split.txt", train, ids, "0 or 1", np.isin(train, (0, 1)))
    named_images(root / "images", names, root / "images.txt")
    return Birds(
        names,
        torch.from_numpy(classes[:, 0]).long() - 1,
        torch.from_numpy(train[:, 0]) == 1,
        boxes,
    )


def chosen_birds(root: Path, task: Classification) -> Birds:
    """Return the images of the classes that a task uses.

    Raises
    ------
    DataError
        If the data has fewer classes than the task, or a file has another format.
    """
    birds, names = read_birds(root), class_lines(root)
    task.names_of(names, root / "classes.txt")
    check_classes(birds.classes, len(names), root / "image_class_labels.txt")
    for name, number in zip(birds.names, birds.classes.tolist(), strict=True):
        if PurePosixPath(name).parts[0] != names[number]:
            raise DataError(
                f"{root / 'image_class_labels.txt'}: the image {name} must have the class of its "
                f"folder (got {names[number]})."
            )
    return birds.only(birds.classes < task.num_classes)


def class_lines(root: Path) -> list[str]:
    """Return the names of all classes, which are the names of their image folders."""
    names = [" ".join(rest) for rest in _table(root / "classes.txt").values()]
    check_unique(names, "class", root / "classes.txt")
    return names


def _table(path: Path) -> dict[str, list[str]]:
    """Return the columns of each line after its id, by id."""
    rows = list(_rows(path))
    check_unique((first for first, _ in rows), "id", path)
    return dict(rows)


def _check_values(
    path: Path,
    values: NDArray[np.float64],
    ids: Sequence[str],
    what: str,
    right: NDArray[np.bool_],
) -> None:
    """Raise an error that names the first image whose value is not `right`."""
    if not right.all():
        wrong = int(np.flatnonzero(~right)[0])
        raise DataError(f"{path}: image {ids[wrong]} must have {what} (got {values[wrong, 0]:g}).")


def _rows(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield the id that begins each line, and the other columns of the line."""
    for number, line in enumerate(read_lines(path), 1):
        first, *rest = line.split()
        if not rest:
            raise DataError(
                f"{path}, line {number}: must hold an id and at least one value (got {line!r})."
            )
        yield first, rest


def _numbers(
    path: Path, rows: Sequence[Sequence[str]], ids: Sequence[str], width: int
) -> NDArray[np.float64]:
    """Return rows of text as a table of numbers, (N, width)."""
    table = np.empty((len(rows), width))
    for place, row in enumerate(rows):
        try:
            table[place] = [float(text) for text in row]
        except ValueError as error:
            raise DataError(
                f"{path}: image {ids[place]} must have {width} numbers (got {' '.join(row)!r})."
            ) from error
    return table


def located(birds: Birds, images: Path) -> Located:
    """Return images with their sizes and with boxes rounded as in wsolevaluation.

    Raises
    ------
    DataError
        If an image cannot be read, or its box is empty or lies outside the image.
    """
    sizes = image_sizes([images / name for name in birds.names])
    left, top, width, height = birds.boxes.T
    outside = ~np.isfinite(birds.boxes).reshape(-1, 2, 2).all(2)
    outside |= (birds.boxes[:, :2] < 0) | (birds.boxes[:, 2:] <= 0) | (birds.boxes[:, :2] >= sizes)
    if outside.any():
        wrong = int(np.flatnonzero(outside.any(1))[0])
        raise DataError(
            f"The box of {birds.names[wrong]} must lie inside the image, which has "
            f"{sizes[wrong, 0]} x {sizes[wrong, 1]} pixels (got left, top, width, height = "
            f"{birds.boxes[wrong].tolist()}). Correct it in bounding_boxes.txt."
        )
    first = np.stack([left, top], 1).astype(np.int64)
    last = np.minimum(np.stack([left + width, top + height], 1).astype(np.int64), sizes - 1)
    boxes = np.concatenate([first, last], 1)[:, None]
    return Located(birds.names, birds.classes, sizes, boxes)


def read_masks(folder: Path, images: Path, names: Sequence[str]) -> Tensor:
    """Return the masks of CUB's segmentations, packed, (N, MASK_WORDS) int64.

    A pixel belongs to the bird if more than half of those who drew its outline say so: the files
    hold shares of 255.

    Parameters
    ----------
    folder
        Folder of the masks, with a subfolder for each class.
    images
        Folder of the images.
    names
        Paths of the N images relative to their folder.

    Raises
    ------
    DataError
        If a mask is missing, damaged or empty, or its size differs from the image's.
    """

    def mask_of(name: str) -> Tensor:
        path = (folder / name).with_suffix(".png")
        shares = read_image(path)[0].numpy()
        (height, width), expected = shares.shape, image_size(images / name)
        if (width, height) != expected:
            raise DataError(
                f"The mask {path} must have the size of its image, {expected[0]} x {expected[1]} "
                f"pixels (got {width} x {height})."
            )
        mask = packed(shares > HALF)
        if not mask.any():
            raise DataError(
                f"The mask {path} must have pixels of the bird, which are above {HALF} of 255 "
                f"(its largest value is {shares.max()})."
            )
        return mask

    with ThreadPoolExecutor(THREADS) as pool:
        found = [*pool.map(mask_of, names)]
    return torch.stack(found) if found else torch.empty(0, MASK_WORDS, dtype=torch.int64)


def image_sizes(paths: Sequence[Path]) -> NDArray[np.int64]:
    """Return the width and height of every image, (N, 2), read from the file headers.

    Raises
    ------
    DataError
        If an image cannot be read.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        return np.array(list(pool.map(image_size, paths)), np.int64).reshape(-1, 2)


METADATA = ("image_ids", "class_labels", "image_sizes", "localization")


def metadata(images: Located) -> dict[str, str]:
    """Return the contents of wsolevaluation's four metadata files for images, by file name."""
    named = list(zip(images.names, images.classes.tolist(), images.sizes, strict=True))
    boxed = zip(images.names, images.boxes, strict=True)
    lines = (
        images.names,
        [f"{name},{label}" for name, label, _ in named],
        [f"{name},{width},{height}" for name, _, (width, height) in named],
        [",".join([name, *map(str, box)]) for name, boxes in boxed for box in boxes],
    )
    return {name: "\n".join(text) for name, text in zip(METADATA, lines, strict=True)}


def read_metadata(
    folder: Path, images: Path, place: Callable[[str, int], str] = lambda name, _class: name
) -> Located:
    """Return the images and boxes of wsolevaluation's four metadata files.

    Parameters
    ----------
    folder
        Folder of the files.
    images
        Folder of the images.
    place
        Function of an image's name in the files and its class that returns its path in `images`.

    Raises
    ------
    DataError
        If a line has another format, an image has no box, or a size differs from the image's.
    """
    names = read_lines(folder / "image_ids.txt")
    tables = {
        name: _by_image(folder / f"{name}.txt", names, width)
        for name, width in zip(METADATA[1:], (1, 2, 4), strict=True)
    }
    labels = [tables["class_labels"][name][0][0] for name in names]
    placed = [place(name, label) for name, label in zip(names, labels, strict=True)]
    named_images(images, placed, folder / "image_ids.txt")
    sizes = np.array([tables["image_sizes"][name][0] for name in names])
    found = image_sizes([images / name for name in placed])
    wrong = np.flatnonzero((sizes != found).any(1))
    if len(wrong):
        name, (width, height) = placed[wrong[0]], found[wrong[0]]
        raise DataError(
            f"{images / name} must have the size that is given in {folder / 'image_sizes.txt'}, "
            f"{sizes[wrong[0], 0]} x {sizes[wrong[0], 1]} pixels (got {width} x {height})."
        )
    boxes = [tables["localization"][name] for name in names]
    most = max(map(len, boxes))
    padded = np.array([[*rows, *[rows[0]] * (most - len(rows))] for rows in boxes], np.int64)
    return Located(placed, torch.tensor(labels), sizes, padded)


def _by_image(path: Path, names: Sequence[str], width: int) -> dict[str, list[list[int]]]:
    """Return rows of `width` integers by image name, with at least one row for each image."""
    found: dict[str, list[list[int]]] = {}
    for number, line in enumerate(read_lines(path), 1):
        name, *texts = line.split(",")
        try:
            row = [int(text) for text in texts]
        except ValueError:
            row = []
        if len(row) != width:
            raise DataError(
                f"{path}, line {number}: must hold an image name and {width} integers "
                f"(got {line!r})."
            )
        found.setdefault(name, []).append(row)
    missing = next((name for name in names if name not in found), None)
    if missing is not None:
        raise DataError(f"{path} must have a line for the image {missing}.")
    return found


# SHA-256 of wsolevaluation's published metadata files.
PUBLISHED = {
    "train": {
        "image_ids": "c04cbe44e79ef2129afac49a15eb51b8f050cdef140cef4cf908cef823000b66",
        "class_labels": "4f19c23e9fdf3cfae8027a9ea8a1cec1b4ecc6a3cb6cf0fe12723c48cde82b30",
        "image_sizes": "307a9ed88a011e41b16153ed9745f4cf41054fdfb834f412f104873a42a959cd",
        "localization": "672f41482883e8a23e9b1406b8e75aec7c74c18da39b024724c804dba3c480fd",
    },
    "test": {
        "image_ids": "f654e4676187fc322ad409487faa3568bffa751438198011692e7ff01be574ca",
        "class_labels": "0e65f035658267b2c7eec0d289048bb822e4a5f9a244b034c127ea7fb1367d7d",
        "image_sizes": "96c4e79810545b237b2a79f4623a198ce6effb290fba01790b5587b464abd33b",
        "localization": "85d2bd87f1bfb1641ae42f36df070c34b4755f260267326d2a2d19e65a9acf00",
    },
}


def compare_metadata(root: Path) -> Iterator[Finding]:
    """Compute the metadata from CUB's files and yield how it compares with the published files."""
    birds = read_birds(root)
    for part, of in (("train", birds.train), ("test", ~birds.train)):
        texts = metadata(located(birds.only(of), root / "images"))
        for name, digest in PUBLISHED[part].items():
            found = hashlib.sha256(texts[name].encode()).hexdigest()
            same = found == digest
            text = "as published" if same else f"differs from published (SHA-256 {found})"
            yield Finding(f"wsolevaluation's {part}/{name}.txt", same, text)
