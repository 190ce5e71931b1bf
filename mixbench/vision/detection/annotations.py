"""Lists of images and annotations of objects, in the files of Pascal VOC."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from mixbench.errors import DataError
from mixbench.vision.images.lists import read_lines

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip
CORNERS = ("xmin", "ymin", "xmax", "ymax")


class ObjectAnnotation(NamedTuple):
    """An object on an image.

    Attributes
    ----------
    class_id
        Its position in `CLASSES`.
    box
        Columns and rows of its first and last pixel, from 1, as annotated.
    difficult
        Whether it is hard to see.
    """

    class_id: int
    box: tuple[float, ...]
    difficult: bool


class Annotated(NamedTuple):
    """What an annotation says of an image: its width and height, and its objects."""

    size: tuple[int, int]
    things: list[ObjectAnnotation]


def listed(root: Path, name: str) -> list[tuple[Path, Path]]:
    """Return the images of a list in one of VOC's folders, each with its annotation."""
    ids = [line.split()[0] for line in read_lines(root / f"ImageSets/Main/{name}.txt")]
    return [(root / f"JPEGImages/{i}.jpg", root / f"Annotations/{i}.xml") for i in ids]


def read_annotation(path: Path) -> Annotated:
    """Return what an annotation says.

    Parts of objects, which some annotations have, are not looked at.

    Raises
    ------
    DataError
        If it is missing or no annotation, or names another class.
    """
    try:
        root = ElementTree.parse(path).getroot()
    except FileNotFoundError as error:
        raise DataError(f"The annotation {path} is missing.") from error
    except (OSError, ElementTree.ParseError) as error:
        raise DataError(f"{path} must be an annotation in XML: {error}.") from error
    width, height = (int(_number(path, root, f"size/{name}")) for name in ("width", "height"))
    if min(width, height) < 1:
        raise DataError(f"{path} must say how large the image is (got {width} x {height} pixels).")
    return Annotated((width, height), [_thing(path, item) for item in root.findall("object")])


def _thing(path: Path, item: ElementTree.Element) -> ObjectAnnotation:
    name = item.findtext("name", "").strip()
    if name not in CLASSES:
        raise DataError(f"{path} names an object of VOC's 20 classes each (got {name!r}).")
    box = tuple(_number(path, item, f"bndbox/{corner}") for corner in CORNERS)
    return ObjectAnnotation(
        CLASSES.index(name), box, item.findtext("difficult", "0").strip() == "1"
    )


def _number(path: Path, item: ElementTree.Element, name: str) -> float:
    text = item.findtext(name, "").strip()
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{path} must have a number as {name} (got {text!r}).")
    return value


def write_annotation(path: Path, size: tuple[int, int], things: Iterable[ObjectAnnotation]) -> None:
    """Write what `read_annotation` reads."""
    lines = [f"<annotation>\n<filename>{path.stem}.jpg</filename>"]
    lines += [f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"]
    for thing in things:
        corners = (
            f"<{name}>{value:g}</{name}>" for name, value in zip(CORNERS, thing.box, strict=True)
        )
        lines += [
            f"<object><name>{CLASSES[thing.class_id]}</name>"
            f"<difficult>{int(thing.difficult)}</difficult>"
            f"<bndbox>{''.join(corners)}</bndbox></object>"
        ]
    path.write_text("\n".join([*lines, "</annotation>\n"]), encoding="utf-8")
