"""ImageNet localization: locate objects with a classifier that is trained without boxes.

Data     that of imagenet, train/WNID/ and val/WNID/; the metadata of clovaai/wsolevaluation,
         metadata/ILSVRC/{val,test}/, as metadata/{val,test}/ beside them; and, for validation,
         ImageNetV2 (threshold 0.7) as val2/0/ to val2/999/, as wsolevaluation unpacks it
Licence  ImageNet's terms: non-commercial research and teaching only; boxes of ImageNetV2: CC-BY-2.0
Split    test: the official 50,000 validation images, with their boxes; validation: the 10,000
         images of ImageNetV2; all official training images are used for training
Recipe   paper: the recipe of clovaai/wsolevaluation@96f4b88, main.py and wsol/: ten epochs from
         ImageNet weights, the learning rate divided by ten after 2, 5 and 8. Its learning rates are
         only in a spreadsheet of the authors; those here are copies, for resnet50 from
         dongjunhwang/small_object_wsol@334a886, scripts/resnet_imagenet_ours.sh:14, for vgg16 and
         inception_v3 from one other copy
Differs  the classifier begins anew, where the reference keeps that of resnet50. Learning rates are
         those of the CAM baseline for all methods
Expect   no number that the authors publish as text
"""

from functools import partial
from pathlib import Path, PurePosixPath

import torch

from mixbench.contract import Part, Split
from mixbench.declare import (
    MAX_BOX_ACC,
    WSOL_WEIGHTS,
    Count,
    Data,
    Recipe,
    Synthetic,
    Weights,
)
from mixbench.streams import generator
from mixbench.vision.images.folders import class_folders, list_images
from mixbench.vision.images.lists import write_lines
from mixbench.vision.images.scenes import looks, one_thing, write_images
from mixbench.vision.localization.task import TrainedLocalization

from .cub_wsol.files import Located, image_sizes, metadata, read_metadata

SIZE = (72, 96)  # height and width of synthetic images, in pixels


class ImagenetWsol(TrainedLocalization):
    """Classify photographs and locate their objects by class activation maps.

    Parameters
    ----------
    classes
        Number of classes; the first ones, sorted by WordNet id, are used.
    side : pixels
        Side of the squares to which images are resized, regardless of their aspect ratios. Boxes
        are always evaluated in squares of 224 pixels.
    large_map
        Whether the last feature maps of resnet50, vgg16 and inception_v3 are 28x28 instead of
        14x14.
    weights
        Initial weights of the model, except its classifier's: ``published`` for published ImageNet
        weights, ``random``, or a path of a file of weights.
    """

    version = 1
    data = Data(
        name="imagenet_wsol",
        version="ILSVRC 2012, metadata of wsolevaluation@96f4b88",
        licence="ImageNet's terms: non-commercial research and teaching only",
        url="https://github.com/clovaai/wsolevaluation",
        files={
            "metadata/val/image_ids.txt":
                "bcd13383b7fdaa8aa9cfd02228b398802cf64b20f6efe13aa4b0696b9431d993",
            "metadata/val/class_labels.txt":
                "316209e92831b0dd910432afe74c55f2fb33ed72ade1378d3d0954df325ea51e",
            "metadata/val/image_sizes.txt":
                "4c82c4c1e14bc7f6a1a8a1fe7ab91df2ec369318b39a8b70618d6bd041cc7410",
            "metadata/val/localization.txt":
                "4d01d6e9eab27ec860092a43f5b7480f10aadbf21234bd01ae419e9c8181ea3f",
            "metadata/test/image_ids.txt":
                "68bed6c35194a126dba32ad15f2f19596a5f1a3923ffc4ac301402d93e045583",
            "metadata/test/class_labels.txt":
                "a226044e3e00900291053ecb8e68640385a196c5521c793d242df9e084e898b6",
            "metadata/test/image_sizes.txt":
                "dde3957c4bf3bdab41ec759386c6ebaa8bed2c1790891ec3465e3a235ed63f3e",
            "metadata/test/localization.txt":
                "c4a9929837b61e9c2a03524f5b963945782ddc9930c4f8ea764cc10004c5ee62",
        },
        file_counts={"train": 1281167, "val": 50000, "val2": 10000},
        parts={
            "train": "train", "val": "test", "val2": "train",
            "metadata/val/image_ids.txt": "train", "metadata/val/class_labels.txt": "train",
            "metadata/val/image_sizes.txt": "train", "metadata/val/localization.txt": "train",
            "metadata/test/image_ids.txt": "test", "metadata/test/class_labels.txt": "test",
            "metadata/test/image_sizes.txt": "test", "metadata/test/localization.txt": "test",
        },
        manual_steps="Set up imagenet with `mixbench data get imagenet`. Put the folders val and "
        "test of metadata/ILSVRC of wsolevaluation into a folder metadata beside train and val, "
        "and ImageNetV2 (imagenetv2-threshold0.7.tar.gz) as val2.",
        shares_folder_with="imagenet",
        num_train=1281167,
        num_test=50000,
        num_validation=10000,
    )  # fmt: skip
    published = WSOL_WEIGHTS
    synthetic = Synthetic(train=90, test=30, protocols=("quick",))
    by_protocol = {"quick": {"classes": 6, "side": 48, "weights": "random"}}
    metrics = MAX_BOX_ACC
    models = ("resnet8", "resnet50", "vgg16", "inception_v3")
    takes_timm = True
    protocols = {
        "paper": Recipe(
            model="resnet50",
            epochs=10,
            batch_size=32,
            lr=0.00003108411,
            head_lr_mult=10,
            weight_decay=1e-4,
            milestones=(2, 5, 8),
        ),
        "quick": Recipe(model="resnet8", epochs=25, batch_size=30, lr=0.05, tail=1, threads=2),
    }
    by_model = {
        "paper": {
            "vgg16": {"lr": 0.00001654502, "weight_decay": 5e-4},
            "inception_v3": {"lr": 0.0003606503, "weight_decay": 5e-4},
        }
    }

    def __init__(
        self,
        classes: Count = 1000,
        side: Count = 224,
        *,
        large_map: bool = True,
        weights: Weights = "published",
    ) -> None:
        super().__init__(classes, side, large_map=large_map, weights=weights)
        self.holdout = 0.0

    @property
    def has_validation(self) -> bool:
        """Whether there is a validation split: ImageNetV2."""
        return True

    def load(self, part: Part, folder: Path, seed: int) -> Split:  # noqa: ARG002  # all are used
        """Return the test images, the training images, or the validation images.

        Targets of the training split are the classes, (N,). Targets of the other splits are the
        classes and the boxes in 224x224 images, (N, 1 + 4 n) int64.
        """
        if part == "validation":
            return self._measured(read_metadata(folder / "metadata/val", folder), folder)
        every = class_folders(folder / "val")
        if part == "test":
            places = partial(in_class_folder, every)
            return self._measured(read_metadata(folder / "metadata/test", folder, places), folder)
        listing = list_images(folder / "train", self.names_of(every, folder / "val"))
        return self.split(listing.paths, listing.classes)

    def _measured(self, found: Located, folder: Path) -> Split:
        """Return a split with ground-truth boxes."""
        paths = [folder / name for name in found.names]
        return self.measured(paths, found.classes, found.boxes, found.sizes)

    def class_names(self, folder: Path) -> list[str]:
        """Return the sorted WordNet ids of the classes that are used."""
        return self.names_of(class_folders(folder / "val"), folder / "val")

    def synthesize(self, folder: Path, amount: Synthetic) -> None:
        """Write synthetic images of one object each, and their metadata, in the same folders."""
        counts = (("train", amount.train), ("val", amount.test), ("val2", amount.test))
        for number, (part, count) in enumerate(counts):
            rng = generator(amount.seed, "synthetic", number)
            classes = torch.arange(self.num_classes).repeat_interleave(count)
            names = [
                f"val2/{c}/{i % count}.jpeg" if part == "val2" else
                f"{part}/n{c:08}/{part}_{i:08}.JPEG" for i, c in enumerate(classes.tolist())
            ]  # fmt: skip
            for name in names:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
            paths = [folder / name for name in names]
            layout = one_thing(classes, rng, (0.2, 0.4))
            boxes = write_images(paths, layout, looks(self.num_classes), SIZE, rng)[:, 0]
            if part != "train":
                corners = torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:] - 1], 1)
                flat = [f"val/{name.rpartition('/')[2]}" if part == "val" else name
                        for name in names]  # fmt: skip
                found = Located(flat, classes, image_sizes(paths), corners.long().numpy()[:, None])
                self._write_metadata(folder / "metadata" / ("test" if part == "val" else "val"),
                                     found)  # fmt: skip

    @staticmethod
    def _write_metadata(folder: Path, found: Located) -> None:
        folder.mkdir(parents=True)
        for name, text in metadata(found).items():
            write_lines(folder / f"{name}.txt", text.split("\n"))


def in_class_folder(names: list[str], name: str, number: int) -> str:
    """Return where an image of wsolevaluation's flat folder val lies in a folder per class."""
    wnid = names[number] if number < len(names) else ""
    return str(PurePosixPath("val", wnid, PurePosixPath(name).name))
