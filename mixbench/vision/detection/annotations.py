"""Image lists and object annotations in the file formats of Pascal VOC."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from mixbench.datasets.listing import named_images
from mixbench.errors import DataError
from mixbench.vision.images.lists import read_lines

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip
CORNERS = ("xmin", "ymin", "xmax", "ymax")
FLAGS = {"0": False, "1": True, "false": False, "true": True}  # VOC has 0 and 1, other tools words


class ObjectAnnotation(NamedTuple):
    """Annotation of an object in an image.

    Attributes
    ----------
    class_id
        Index of the object's class in `CLASSES`.
    box
        First column, first row, last column and last row of the object, counted from 1.
    difficult
        Whether the object is annotated as difficult to recognise.
    """

    class_id: int
    box: tuple[float, ...]
    difficult: bool


class Annotated(NamedTuple):
    """Annotation of an image.

    Attributes
    ----------
    size : pixels
        Width and height of the image.
    things
        Annotated objects in the image.
    """

    size: tuple[int, int]
    things: list[ObjectAnnotation]


def listed(root: Path, name: str) -> list[tuple[Path, Path]]:
    """Return the image paths of a list in a VOC folder, each with the path of its annotation."""
    path = root / f"ImageSets/Main/{name}.txt"
    ids = [line.split()[0] for line in read_lines(path)]
    images = named_images(root / "JPEGImages", [f"{i}.jpg" for i in ids], path)
    return [(image, root / f"Annotations/{i}.xml") for image, i in zip(images, ids, strict=True)]


def read_annotation(path: Path) -> Annotated:
    """Read the annotation of an image.

    Annotations of parts of objects, which some files contain, are ignored.

    Raises
    ------
    DataError
        If the file is missing, is not a valid annotation, or names an unknown class.
    """
    try:
        root = ElementTree.parse(path).getroot()
    except FileNotFoundError as error:
        raise DataError(f"The annotation {path} is missing.") from error
    except (OSError, ElementTree.ParseError) as error:
        raise DataError(f"{path} must be an annotation in XML: {error}.") from error
    width, height = (int(_number(path, root, f"size/{name}")) for name in ("width", "height"))
    if min(width, height) < 1:
        raise DataError(f"{path} must give a positive image size (got {width} x {height} pixels).")
    return Annotated((width, height), [_thing(path, item) for item in root.findall("object")])


def _thing(path: Path, item: ElementTree.Element) -> ObjectAnnotation:
    name = item.findtext("name", "").strip()
    if name not in CLASSES:
        raise DataError(f"{path} must name one of VOC's 20 classes for each object (got {name!r}).")
    box = tuple(_number(path, item, f"bndbox/{corner}") for corner in CORNERS)
    if box[2] < box[0] or box[3] < box[1]:
        raise DataError(
            f"{path} must have boxes with xmin <= xmax and ymin <= ymax (got {list(box)})."
        )
    difficult = item.findtext("difficult", "0").strip()
    if difficult not in FLAGS:
        raise DataError(f"{path} must have 0 or 1 as difficult (got {difficult!r}).")
    return ObjectAnnotation(CLASSES.index(name), box, FLAGS[difficult])


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
    """Write an annotation in the format that `read_annotation` reads."""
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
