"""Tiny-ImageNet-200: 110,000 photographs of 64x64 pixels in 200 classes.

Data     Le & Yang, Tiny ImageNet Visual Recognition Challenge, 2015: tiny-imagenet-200/ with
         train/WNID/images/ and val/val_annotations.txt; classes are sorted by WordNet id (WNID)
Licence  ImageNet's terms: non-commercial research and teaching only
Split    test: the official 10,000 validation images, whose labels are public; validation: 10 % of
         every class of the official 100,000 training images
Recipe   paper: the recipe of Cascante-Bonilla et al., BMVC 2021, arXiv:2106.09011, §4.1; models use
         the stem for small images, which the paper does not specify
         deit, convnext: the recipes of Westlake-AI/openmixup@37e1372 for CIFAR-100 (configs/
         classification/cifar100/mixups/vits), at the size of these images: ViT-S with 8x8 patches,
         ConvNeXt-T with a stem of stride 2 and no stride before its last stage. rsb_a3: procedure
         A3 of arXiv:2110.00476 on ResNet-50, with batches of 256 and so a learning rate that is
         smaller by the square root of 8
Expect   protocol paper, resnet50: 61.2 % top-1 without mixing (the paper)
"""

from pathlib import Path

import torch
from torch import Tensor

from mixbench.contract import PARTS, ClassIndex, Normalization, Part, Split, check_paths
from mixbench.datasets.listing import named_images
from mixbench.declare import (
    QUICK_PROTOCOLS,
    SMALL_FIELD_PROTOCOLS,
    SMALL_NETS,
    SMALL_PATCH_NETS,
    TOP1_AND_TOP5,
    Archive,
    Count,
    CountOrZero,
    Data,
    Fraction,
    Metric,
    Recipe,
    Synthetic,
    Weights,
    table_row,
)
from mixbench.errors import DataError
from mixbench.streams import generator
from mixbench.vision.images.augment import CropFlip
from mixbench.vision.images.folders import Listing, list_images
from mixbench.vision.images.lists import check_unique, read_lines, write_lines
from mixbench.vision.images.scenes import looks, one_thing, shuffled_classes, write_images
from mixbench.vision.images.splits import ResidentSplit, read_all
from mixbench.vision.tasks.classification import Classification

SIDE = 64
ROOT = "tiny-imagenet-200"
# Mean and standard deviation of the training images.
PIXELS = Normalization((0.4802, 0.4481, 0.3975), (0.2770, 0.2691, 0.2821))


class TinyImagenet(Classification):
    """Classify small photographs into 200 classes.

    Parameters
    ----------
    classes
        Number of classes; the first ones, sorted by WordNet id, are used.
    holdout
        Fraction of the official training images that is held out for validation.
    per_class
        Number of training images of each class that are used, drawn by the seed; 0 uses all. The
        images that are held out are among them.
    weights
        Initial weights of training: ``random``, ``timm`` or ``timm:TAG`` (weights that timm
        publishes), ``hf-hub:ORG/NAME`` (those of a model of timm on the Hugging Face Hub) or a
        file.
    """

    version = 1
    data = Data(
        name="tiny_imagenet",
        version="CS231n, 2015",
        licence="ImageNet's terms: non-commercial research and teaching only",
        url="http://cs231n.stanford.edu/tiny-imagenet-200.zip",
        files={
            "tiny-imagenet-200/wnids.txt": "6c81990e2d7ae3bd3c88dceb97b46342",
            "tiny-imagenet-200/words.txt": "56b81e64546942b54a5946f584dba635",
            "tiny-imagenet-200/val/val_annotations.txt": "e9a8a28f9975223592f4c6da9fd2369b",
        },
        file_counts={"tiny-imagenet-200/train": 100200, "tiny-imagenet-200/val/images": 10000},
        suffixes=(".txt",),
        parts={
            "tiny-imagenet-200/train": "train",
            "tiny-imagenet-200/val/val_annotations.txt": "test",
            "tiny-imagenet-200/val/images": "test",
        },
        archives=(
            Archive(
                "tiny-imagenet-200.zip",
                "90528d7ca1a48142e341f4ef8d21d0de",
                "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
                248100043,
            ),
        ),
        num_train=100000,
        num_test=10000,
    )
    synthetic = Synthetic(train=120, test=30, protocols=QUICK_PROTOCOLS)
    by_protocol = {
        "few": {"classes": 20, "per_class": 100},
        "quick": {"classes": 10},
        "quick_rsb_a3": {"classes": 10},
        "quick_deit": {"classes": 10},
        "quick_convnext": {"classes": 10},
    }
    added = ("weights",)
    metrics: tuple[Metric, ...] = TOP1_AND_TOP5
    models = (*SMALL_NETS, "resnet8_s2", *SMALL_PATCH_NETS)
    takes_timm = True
    protocols = {
        "paper": Recipe(model="resnet50", epochs=400),
        "quick": Recipe(model="resnet8", epochs=10),
        "few": Recipe(model="resnet8_s2", epochs=100, memory_format="channels_last", tail=3),
        **SMALL_FIELD_PROTOCOLS,
    }
    references = table_row(
        "arXiv:2106.09011", "Table 2, Tiny-Imagenet", "resnet50",
        {
            "none": 61.18, "mixup": 63.04, "cutmix": 63.36, "random_patchmix": 62.94,
            "guided_patchmix": 64.70,
        },
    )  # fmt: skip

    def __init__(
        self,
        classes: Count = 200,
        holdout: Fraction = 0.1,
        per_class: CountOrZero = 0,
        weights: Weights = "random",
    ) -> None:
        super().__init__(classes, (SIDE, SIDE), PIXELS)
        self.holdout, self.per_class, self.weights = holdout, per_class, weights

    def load(self, part: Part, folder: Path, seed: int) -> Split:
        """Read the test images (official validation), or the training or validation images."""
        listing = self.listing(part, folder, seed)
        index = ClassIndex(listing.classes, self.num_classes)
        images = read_all(listing.paths, self.image_size)
        return ResidentSplit(
            images, listing.classes, index, self.normalization, CropFlip(4, flip=0.5)
        )

    def listing(self, part: Part, folder: Path, seed: int) -> Listing:
        """Return the image files of a split."""
        root, names = folder / ROOT, self.class_names(folder)
        if part == "test":
            return annotated(root / "val", names)
        listing = list_images(root / "train", names, "images")
        return listing.only(self.in_part(part, listing.classes, seed))

    def check_data(self, folder: Path) -> None:
        """Check that all splits can be listed; `load` would also decode their images."""
        check_paths({part: self.listing(part, folder, 0).paths for part in PARTS})

    def class_names(self, folder: Path) -> list[str]:
        """Return the sorted WordNet ids of the classes that are used."""
        path = folder / ROOT / "wnids.txt"
        check_unique(read_lines(path), "class", path)
        return self.names_of(sorted(read_lines(path)), path)

    def synthesize(self, folder: Path, amount: Synthetic) -> None:
        """Write synthetic images of one object each in the same folders."""
        kinds, root = looks(self.num_classes), folder / ROOT
        wnids = [f"n{number:08}" for number in range(self.num_classes)]
        root.mkdir()
        write_lines(root / "wnids.txt", reversed(wnids))
        words = (f"{wnid}\t{kind.name}" for wnid, kind in zip(wnids, kinds, strict=True))
        write_lines(root / "words.txt", words)

        rng = generator(amount.seed, "synthetic", 0)
        classes = torch.arange(self.num_classes).repeat_interleave(amount.train)
        names = [f"{wnids[c]}_{i % amount.train}.JPEG" for i, c in enumerate(classes.tolist())]
        paths = [root / "train" / name[:9] / "images" / name for name in names]
        for wnid in wnids:
            (root / "train" / wnid / "images").mkdir(parents=True)
        boxes = write_images(paths, one_thing(classes, rng), kinds, self.image_size, rng)
        for wnid, rows in zip(wnids, boxes[:, 0].split(amount.train), strict=True):
            lines = (f"{wnid}_{i}.JPEG\t{corners(row)}" for i, row in enumerate(rows))
            write_lines(root / "train" / wnid / f"{wnid}_boxes.txt", lines)

        rng = generator(amount.seed, "synthetic", 1)
        classes = shuffled_classes(self.num_classes, amount.test, rng)
        paths = [root / "val" / "images" / f"val_{i}.JPEG" for i in range(len(classes))]
        (root / "val" / "images").mkdir(parents=True)
        boxes = write_images(paths, one_thing(classes, rng), kinds, self.image_size, rng)
        lines = (
            f"{path.name}\t{wnids[c]}\t{corners(row)}"
            for path, c, row in zip(paths, classes.tolist(), boxes[:, 0], strict=True)
        )
        write_lines(root / "val" / "val_annotations.txt", lines)


def corners(box: Tensor) -> str:
    """Return a box in the format of the annotations: left, top, right, bottom."""
    left, top, width, height = (int(value) for value in box)
    return f"{left}\t{top}\t{left + width - 1}\t{top + height - 1}"


def annotated(folder: Path, names: list[str]) -> Listing:
    """Return the official validation images of some classes, in the order of their annotations.

    Raises
    ------
    DataError
        If an annotation has another format or names an unknown class.
    """
    path, index = folder / "val_annotations.txt", {name: i for i, name in enumerate(names)}
    known = set(read_lines(folder.parent / "wnids.txt"))
    files, classes = [], []
    for number, line in enumerate(read_lines(path), 1):
        parts = line.split("\t")
        if len(parts) < 2 or parts[1] not in known:  # columns: file name, class
            raise DataError(
                f"{path}, line {number}: must hold a file name and a class of wnids.txt "
                f"(got {line!r})."
            )
        if parts[1] in index:
            files.append(parts[0])
            classes.append(index[parts[1]])
    return Listing(named_images(folder / "images", files, path), torch.tensor(classes))
