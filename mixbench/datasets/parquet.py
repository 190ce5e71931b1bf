"""Data sets of images in parquet files, as the Hugging Face Hub has them.

An image is a column of structs with ``bytes`` and ``path``, a label a column of integers, whose
names the metadata of the file holds, or of texts. Needs pyarrow.
"""

import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixbench.datasets.listing import is_image
from mixbench.errors import DataError, UsageError

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

SPLITS = {  # words in the paths of files, and the folders that they become
    "train": "train", "training": "train", "test": "test", "testing": "test",
    "validation": "val", "valid": "val", "val": "val", "dev": "val", "eval": "val",
}  # fmt: skip
ROWS = 256  # that are read at a time
NO_LABEL = -1  # of test images whose labels are secret
UNSAFE = re.compile(r"[/\\\0]|^[.\s]+|\s+$")  # in names of folders; those with a dot are hidden
LONGEST = 100  # characters of the name of a folder
Tell = Callable[[int, int], None]


@dataclass(frozen=True)
class Columns:
    """The columns with the images and the labels.

    Attributes
    ----------
    image, label
        Names of the columns.
    names
        Names of the classes, if labels are numbers with names; else empty.
    """

    image: str
    label: str
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class ParquetImages:
    """The parquet files of a data set, by split.

    Attributes
    ----------
    files
        Files by the folder that their images go into: train, test or val.
    columns
        The columns that are read.
    number
        Number of images.
    """

    files: Mapping[str, Sequence[Path]]
    columns: Columns
    number: int

    def write(self, folder: Path, tell: Tell) -> None:
        """Write the image files, as they are, to folders of classes; in train/ and test/ or val/.

        Raises
        ------
        DataError
            If a row has no image or no label.
        """
        done = 0
        taken: dict[str, str] = {}
        for part, paths in self.files.items():
            inside = folder / part if len(self.files) > 1 else folder
            for place, row in self._rows(paths):
                suffix, content = self._image_of(row, place)
                name = _folder_of(self._class_of(row, place), taken)
                target = inside / name / f"{done:08}{suffix}"
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
                done += 1
                if done % ROWS == 0 or done == self.number:
                    tell(done, self.number)

    def _rows(self, paths: Sequence[Path]) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield each row of some files, and its place."""
        import pyarrow as pa

        columns = [self.columns.image, self.columns.label]
        for path in paths:
            try:
                batches = _open(path).iter_batches(ROWS, columns=columns)
                rows = chain.from_iterable(batch.to_pylist() for batch in batches)
                yield from ((f"{path}, row {number}", row) for number, row in enumerate(rows))
            except (pa.ArrowException, OSError) as error:
                first = " ".join(str(error).split())
                raise DataError(f"{path} is damaged: {first}.") from error

    def _image_of(self, row: Mapping[str, Any], place: str) -> tuple[str, bytes]:
        """Return the suffix and the content of a row's image file."""
        found = row[self.columns.image] or {}
        if not (content := found.get("bytes")):
            raise DataError(
                f"{place}: the column {self.columns.image} must hold the bytes of an image file."
            )
        return _suffix(found.get("path") or "", content, place), content

    def _class_of(self, row: Mapping[str, Any], place: str) -> str:
        """Return the name of a row's class, as a folder can have it."""
        label = row[self.columns.label]
        if label is None or label == NO_LABEL:
            raise DataError(
                f"{place} has no label in the column {self.columns.label}. Labels of test images "
                "are often secret: leave that split out with --splits train,validation."
            )
        names = self.columns.names
        if names and not (isinstance(label, int) and 0 <= label < len(names)):
            raise DataError(f"{place}: the label must be in 0..{len(names) - 1} (got {label!r}).")
        return names[label] if names else f"{label:06}" if isinstance(label, int) else str(label)


def parquet_images(
    folder: Path,
    *,
    subset: str = "",
    splits: Sequence[str] = (),
    image: str = "",
    label: str = "",
) -> ParquetImages:
    """Return the images of parquet files, with the columns that are named, or else found.

    Parameters
    ----------
    folder
        Folder of the files. The word train, test or validation in the path of a file is its split.
        A single file is possible as well.
    subset
        Folder of the files that are used, relative to `folder`; all if empty.
    splits
        Words of the splits that are used; all if empty.
    image, label
        Names of the columns; found if empty.

    Raises
    ------
    UsageError
        If a split or column does not exist, or several fit.
    DataError
        If a file is no parquet file.
    """
    if find_spec("pyarrow") is None:
        raise UsageError("Parquet files need pyarrow: pip install 'mixbench[parquet]'.")
    files, folder = ([folder], folder.parent) if folder.is_file() else (
        sorted((folder / subset).rglob("*.parquet")), folder
    )  # fmt: skip
    if not files:
        raise DataError(f"{folder / subset} must hold parquet files (got none).")
    used = _words(files, folder, splits)
    by_part: dict[str, list[Path]] = {}
    for path, word in used.items():
        by_part.setdefault(SPLITS[word or "train"], []).append(path)
    if "test" in by_part and "val" in by_part:  # as for a folder: the test images are the test
        del by_part["val"]
    every = [path for paths in by_part.values() for path in paths]
    subsets = {str(_above_split(path.parent.relative_to(folder))) for path in every}
    if len(subsets) > 1:
        raise UsageError(
            f"{folder} has several subsets: choose one with --subset: {', '.join(sorted(subsets))}."
        )
    columns, number = _columns(every[0], image, label), 0
    for path in every:
        opened = _open(path)
        there = opened.schema_arrow.names
        if lost := [name for name in (columns.image, columns.label) if name not in there]:
            raise DataError(f"{path} must have the column {lost[0]}, as {every[0]} has.")
        number += opened.metadata.num_rows
    return ParquetImages(by_part, columns, number)


def _words(files: Sequence[Path], folder: Path, splits: Sequence[str]) -> dict[Path, str]:
    """Return the files of the splits that are used, with the words of their splits."""
    known = {path: _split_of(path.relative_to(folder)) for path in files}
    words = set(known.values()) - {""}
    unknown = [path for path, word in known.items() if not word]
    if unknown and words and not splits:
        raise UsageError(
            f"{unknown[0]} is of an unknown split, and {len(unknown)} in all: choose splits with "
            f"--splits, of {', '.join(sorted(words))}."
        )
    if missing := [word for word in splits if word not in words]:
        raise UsageError(f"There is no split {missing[0]}: there is {', '.join(sorted(words))}.")
    return {path: word for path, word in known.items() if not splits or word in splits}


def _folder_of(name: str, taken: dict[str, str]) -> str:
    """Return the folder of a class; `taken` has the classes of the folders so far.

    Raises
    ------
    DataError
        If it is that of another class.
    """
    folder = UNSAFE.sub("_", name)[:LONGEST] or "_"
    if folder in SPLITS.values():  # where a folder of this name is a split
        folder += "_"
    if taken.setdefault(folder, name) != name:
        raise DataError(
            f"The classes {taken[folder]!r} and {name!r} have the same folder, {folder}."
        )
    return folder


def _split_of(path: Path) -> str:
    """Return the word of a path that names its split; empty if there is none."""
    for part in (path.stem, *reversed(path.parent.parts)):
        word = re.split(r"[-_.\d]", part.lower(), maxsplit=1)[0]
        if word in SPLITS:
            return word
    return ""


def _above_split(folder: Path) -> Path:
    """Return a folder without a last part that names a split."""
    return folder.parent if folder.name.lower() in SPLITS else folder


def _open(path: Path) -> "ParquetFile":
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    try:
        return ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        first = " ".join(str(error).split())
        raise DataError(f"{path} must be a parquet file ({first}).") from error


def _columns(path: Path, image: str, label: str) -> Columns:
    """Return the columns of a file with images and labels."""
    import pyarrow as pa

    schema = _open(path).schema_arrow
    features: dict[str, Any] = {}
    with suppress(ValueError, KeyError, TypeError):
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    structs = [
        one.name
        for one in schema
        if pa.types.is_struct(one.type) and {"bytes", "path"} <= {part.name for part in one.type}
    ]
    named = [name for name, one in features.items() if _kind(one) == "ClassLabel"]
    plain = [
        one.name for one in schema if pa.types.is_integer(one.type) or pa.types.is_string(one.type)
    ]
    likely = [name for name in plain if re.fullmatch(r"(fine_)?labels?|class(_name)?|target", name)]
    found = Columns(
        _one_of("image", image, structs, structs),
        _one_of("label", label, named or likely or plain, plain),
    )
    names = features.get(found.label, {})
    classes = tuple(map(str, names.get("names") or ())) if isinstance(names, dict) else ()
    return Columns(found.image, found.label, classes)


def _kind(feature: object) -> object:
    return feature.get("_type") if isinstance(feature, dict) else None


def _one_of(what: str, asked: str, likely: Sequence[str], possible: Sequence[str]) -> str:
    """Return the column that the user names, or the only likely one."""
    option = f"--{what}-column"
    if asked and asked not in possible:
        raise UsageError(
            f"{option} must be a column of {what}s: {', '.join(possible) or 'there is none'} (got "
            f"{asked})."
        )
    if not asked and len(likely) != 1:
        told = f"several columns may hold the {what}s" if likely else f"no column holds {what}s"
        raise UsageError(f"{told}: name one with {option} ({', '.join(likely or possible)}).")
    return asked or likely[0]


def _suffix(name: str, content: bytes, place: str) -> str:
    """Return the suffix of an image file: that of its name, or of its format."""
    if is_image(name):
        return Path(name).suffix
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content)) as image:
            found = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp"}
            return found.get(str(image.format), ".png")
    except UnidentifiedImageError as error:
        raise DataError(f"{place} must hold an image file of a known format.") from error
