"""COCO 2014: multi-label classification of 123,287 photographs with 80 categories of objects.

Data     Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014: annotations/ with the
         instances of train2014 and val2014, train2014/ and val2014/
Licence  annotations CC BY 4.0; the photographs belong to their authors (Flickr)
Split    test: val2014; validation: 10 % of train2014. Images without annotations are excluded from
         both, as in Alibaba-MIIL/ASL@8c9e0bd and megvii-research/ML-GCN@5517d6f
Recipe   paper: fine-tune a model that was trained on ImageNet, at 448 pixels for 30 epochs with the
         binary cross-entropy and ten times the learning rate for the classifier; the PatchMix paper
         (arXiv:2106.09011, §5.3) states no recipe
Differs  nothing known; crowds count as objects, as in both repositories
Expect   protocol paper, resnet50: 79.6 % mAP after pre-training without mixing (the paper)
"""

import contextlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from pycocotools.coco import COCO
from torch import Tensor

from mixbench.contract import Part, Split
from mixbench.datasets.listing import named_images
from mixbench.declare import COCO_2014_ARCHIVES, Data, Synthetic, table_row
from mixbench.errors import DataError
from mixbench.vision.images.lists import check_unique, read_json
from mixbench.vision.tasks.multilabel import SIZE, MultiLabel

FOLDERS: dict[Literal["train", "test"], str] = {"train": "train2014", "test": "val2014"}


class Coco(MultiLabel):
    """Predict the object categories in a photograph with a model pre-trained on ImageNet."""

    version = 1
    all_labels = 80
    data = Data(
        name="coco2014",
        version="2014",
        licence="annotations CC BY 4.0; the photographs belong to their authors (Flickr)",
        url="https://cocodataset.org/#download",
        files={
            "annotations/instances_train2014.json": "777ef504abfeba349930485bb32ecd5b6529129a3e010f7852e1437cb049b732",  # noqa: E501
            "annotations/instances_val2014.json": "e1b4d1bc54906827b1a029981b1c77f2088bd4462569b7615db7929070c3ab47",  # noqa: E501
        },
        file_counts={"train2014": 82783, "val2014": 40504},
        parts={
            "annotations/instances_train2014.json": "train",
            "train2014": "train",
            "annotations/instances_val2014.json": "test",
            "val2014": "test",
        },
        archives=COCO_2014_ARCHIVES,
        num_train=82081,  # with objects
        num_test=40137,
    )
    references = table_row(
        "arXiv:2106.09011", "Table 4, COCO", "resnet50",
        {
            "none": 79.64, "mixup": 81.20, "cutmix": 79.68, "random_patchmix": 81.27,
            "guided_patchmix": 83.21,
        },
        metric="map",
    )  # fmt: skip

    def load(self, part: Part, folder: Path, seed: int) -> Split:
        """List the test images (val2014), or the training or validation images of train2014."""
        name = FOLDERS["test" if part == "test" else "train"]
        path = folder / f"annotations/instances_{name}.json"
        found = read_instances(path)
        self.names_of(found.categories, path)
        paths = named_images(folder / name, found.files, path)
        return self.part_of(paths, found.targets, part, seed, empty=False)

    def class_names(self, folder: Path) -> list[str]:
        """Return the names of the categories that are used, in the order of their ids."""
        path = folder / "annotations/instances_val2014.json"
        return self.names_of(read_instances(path).categories, path)

    def check_data(self, folder: Path) -> None:
        """Check that both files have the same categories, and the files of all splits."""
        train, test = (folder / f"annotations/instances_{name}.json" for name in FOLDERS.values())
        names = [read_instances(path).ids for path in (train, test)]
        if names[0] != names[1]:
            raise DataError(
                f"{train} and {test} must have the same categories with the same ids "
                f"(got {len(names[0])} and {len(names[1])}, which differ)."
            )
        super().check_data(folder)

    def synthesize(self, folder: Path, amount: Synthetic) -> None:
        """Write synthetic images and their annotations in the same format.

        Category ids have gaps, as in the published data.
        """
        (folder / "annotations").mkdir()
        for part, name in FOLDERS.items():
            scenes = self.scenes(amount, part)
            files = [f"COCO_{name}_{i:012}.jpg" for i in range(len(scenes.layout))]
            (folder / name).mkdir()
            boxes = scenes.write([folder / name / file for file in files])
            names = [kind.name for kind in scenes.kinds]
            content = instances(files, names, scenes.layout.looks, boxes)
            path = folder / f"annotations/instances_{name}.json"
            path.write_text(json.dumps(content), encoding="utf-8")


def instances(
    files: Sequence[str], names: Sequence[str], looks_: Tensor, boxes: Tensor
) -> dict[str, Any]:
    """Return COCO annotations of the visible objects in images; `looks_` has shape (N, n)."""
    categories = [{"id": 1 + 2 * k, "name": name} for k, name in enumerate(names)]
    height, width = SIZE
    seen = torch.nonzero((looks_ >= 0) & (boxes[..., 2] > 0)).tolist()
    return {
        "images": [
            {"id": i, "file_name": f, "height": height, "width": width} for i, f in enumerate(files)
        ],
        "categories": categories,
        "annotations": [
            {
                "id": number,
                "image_id": i,
                "category_id": categories[int(looks_[i, j])]["id"],
                "bbox": boxes[i, j].tolist(),
                "area": float(boxes[i, j, 2] * boxes[i, j, 3]),
                "iscrowd": 0,
            }
            for number, (i, j) in enumerate(seen)
        ],
    }


class Instances(NamedTuple):
    """Images in the order of their ids, with their labels.

    Attributes
    ----------
    files
        File names of the images.
    categories
        Category names in the order of their ids.
    targets : (N, K) int8
        1 if the image has an object of the category, else 0.
    ids
        Names of the categories by id.
    """

    files: list[str]
    categories: list[str]
    targets: Tensor
    ids: dict[int, str]


def read_instances(path: Path) -> Instances:
    """Return the images, categories and labels of an instances file.

    Raises
    ------
    DataError
        If the file has another format, or an annotation refers to an image or category that is not
        in the file.
    """
    try:
        coco = COCO()
        coco.dataset = read_json(path)
        for name, key in (("images", "id"), ("images", "file_name"), ("categories", "id"),
                          ("annotations", "id")):  # fmt: skip
            check_unique((row[key] for row in coco.dataset[name]), f"{key} in {name}", path)
        with contextlib.redirect_stdout(io.StringIO()):  # createIndex prints progress messages
            coco.createIndex()
        categories = {c["id"]: c["name"] for c in coco.loadCats(sorted(coco.getCatIds()))}
        images = coco.loadImgs(sorted(coco.getImgIds()))
        files = [image["file_name"] for image in images]
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} must hold annotations in COCO format ({error!r}).") from error
    place = {image["id"]: i for i, image in enumerate(images)}
    column = {number: k for k, number in enumerate(categories)}
    targets = torch.zeros(len(files), len(column), dtype=torch.int8)
    for annotation in coco.anns.values():
        image, category = annotation.get("image_id"), annotation.get("category_id")
        if image not in place or category not in column:
            lacks = f"image {image}" if image not in place else f"category {category}"
            raise DataError(
                f"{path}: annotation {annotation['id']} refers to {lacks}, which is not in the "
                "file."
            )
        targets[place[image], column[category]] = 1
    return Instances(files, list(categories.values()), targets, categories)
