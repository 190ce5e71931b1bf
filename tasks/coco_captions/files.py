"""Read and write captions: the official COCO 2014 annotations and Karpathy's split."""

import contextlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pycocotools.coco import COCO

from mixbench.datasets.listing import named_images
from mixbench.errors import DataError
from mixbench.vision.images.lists import check_unique, read_json

Part = Literal["train", "validation", "test"]
KARPATHY = "dataset_coco.json"
TREES = {"train": "train2014", "test": "val2014"}
SPLITS: Mapping[str, Part] = {
    "train": "train", "restval": "train", "val": "validation", "test": "test",
}  # fmt: skip


class Captioned(NamedTuple):
    """An image, given by its path relative to the data folder, and its captions."""

    file: str
    captions: list[str]


def official(folder: Path, tree: str) -> list[Captioned]:
    """Return the images of train2014 or val2014, in the order of their ids.

    Raises
    ------
    DataError
        If the file does not hold caption annotations, has an image twice, or has an annotation
        that refers to an unknown image.
    """
    path = folder / f"annotations/captions_{tree}.json"
    content = _read(path)
    try:
        coco = COCO()
        coco.dataset = content
        with contextlib.redirect_stdout(io.StringIO()):  # createIndex prints progress messages
            coco.createIndex()
        images = {image["id"]: image["file_name"] for image in content["images"]}
        check_unique((image["id"] for image in content["images"]), "image id", path)
        check_unique((note["id"] for note in content["annotations"]), "annotation id", path)
        named_images(folder / tree, images.values(), path)
        for annotation in content["annotations"]:
            if annotation["image_id"] not in images:
                raise DataError(
                    f"{path}: annotation {annotation['id']} refers to image "
                    f"{annotation['image_id']}, which is not in the file."
                )
        return [
            Captioned(f"{tree}/{images[number]}", [_text(path, a) for a in coco.imgToAnns[number]])
            for number in sorted(images)
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} must hold captions in COCO format ({error!r}).") from error


def karpathy(folder: Path, part: Part) -> list[Captioned]:
    """Return the images of one split in Karpathy's file, in the order of the file.

    Raises
    ------
    DataError
        If the file has another format, has an image twice, or names an unknown split.
    """
    path = folder / KARPATHY
    content = _read(path)
    try:
        images = content["images"]
        check_unique((image["cocoid"] for image in images), "cocoid", path)
        named_images(folder, (f"{i['filepath']}/{i['filename']}" for i in images), path)
        strange = [image for image in images if image["split"] not in SPLITS]
        if strange:
            raise DataError(
                f"{path}: the split of image {strange[0]['cocoid']} must be one of "
                f"{', '.join(SPLITS)} (got {strange[0]['split']!r})."
            )
        return [
            Captioned(
                f"{i['filepath']}/{i['filename']}", [_raw(path, i, s) for s in i["sentences"]]
            )
            for i in images
            if SPLITS[i["split"]] == part
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} must hold Karpathy's split of COCO ({error!r}).") from error


def _read(path: Path) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise DataError(f"{path} must hold a JSON object (got a {type(content).__name__}).")
    return content


def _text(path: Path, annotation: Mapping[str, Any]) -> str:
    caption = annotation["caption"]
    if not isinstance(caption, str):
        raise DataError(
            f"{path}: the caption of annotation {annotation['id']} must be a string "
            f"(got {caption!r})."
        )
    return caption


def _raw(path: Path, image: Mapping[str, Any], sentence: Mapping[str, Any]) -> str:
    if not isinstance(sentence["raw"], str):
        raise DataError(f"{path}: every sentence of image {image['cocoid']} must be a string.")
    text: str = sentence["raw"]
    return text


def write_official(folder: Path, tree: str, images: Sequence[Captioned]) -> None:
    """Write captions as COCO annotations; the image ids have gaps, as in the published data."""
    (folder / "annotations").mkdir(exist_ok=True)
    said = [(7 * i + 3, c) for i, image in enumerate(images) for c in image.captions]
    content = {
        "images": [
            {"id": 7 * i + 3, "file_name": Path(image.file).name} for i, image in enumerate(images)
        ],
        "annotations": [
            {"id": n, "image_id": number, "caption": caption}
            for n, (number, caption) in enumerate(said)
        ],
    }
    path = folder / f"annotations/captions_{tree}.json"
    path.write_text(json.dumps(content), encoding="utf-8")


def write_karpathy(folder: Path, parts: Mapping[str, Sequence[Captioned]]) -> None:
    """Write captions in the format of Karpathy's split; `parts` maps its split names to images."""
    content = {"dataset": "coco", "images": list(_images(parts))}
    (folder / KARPATHY).write_text(json.dumps(content), encoding="utf-8")


def _images(parts: Mapping[str, Sequence[Captioned]]) -> Iterator[dict[str, Any]]:
    number = 0
    for split, images in parts.items():
        for image in images:
            path = Path(image.file)
            sentences = [{"raw": caption, "tokens": caption.split()} for caption in image.captions]
            yield {
                "cocoid": number, "split": split, "filepath": str(path.parent),
                "filename": path.name, "sentences": sentences,
            }  # fmt: skip
            number += 1
