"""ImageNet-1k (ILSVRC 2012): 1.33 million photographs in 1,000 classes.

Data     Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge, 2015: folders
         train/WNID/ and val/WNID/, as unpacked from the official archives by `mixbench data get`
         or by torchvision; classes are sorted by WordNet id (WNID)
Licence  requires registration at image-net.org; non-commercial research and teaching only
Split    test: the official 50,000 validation images, whose labels are public; validation: 2 % of
         every class of the official training images
Recipe   paper: the recipe of clovaai/CutMix-PyTorch@2d8eb68, train.py and its README, because the
         PatchMix paper states none: 300 epochs, the learning rate is divided by ten after epochs
         75, 150 and 225
         rsb_a3: procedure A3 of Wightman et al., arXiv:2110.00476, Table 2, which does not state
         the first and last learning rates and the threshold of the targets
         deit: Touvron et al., arXiv:2012.12877, facebookresearch/deit@7e160fe, main.py:34-138
         convnext: Liu et al., arXiv:2201.03545, facebookresearch/ConvNeXt@048efce, main.py:51-138
         and TRAINING.md:16-40, whose EMA weights are ranked
         These three change the learning rate in every step, with a warm-up inside the cosine, and
         compute in float32 unless `precision` says otherwise
Expect   protocol paper, resnet50: 76.3 % top-1 without mixing
"""

import re
import shutil
import tarfile
from pathlib import Path
from typing import Literal

import torch

from mixbench.contract import ClassIndex, Part, Split
from mixbench.datasets.archives import opened_tar, unpack, unpack_tar
from mixbench.declare import (
    IMAGENET_FIELD_PROTOCOLS,
    QUICK_PROTOCOLS,
    SMALL_NETS,
    TOP1_AND_TOP5,
    Archive,
    Count,
    CountOrZero,
    Data,
    Fraction,
    PositiveFraction,
    Recipe,
    Synthetic,
    Weights,
    table_row,
)
from mixbench.errors import DataError
from mixbench.streams import generator
from mixbench.vision.images.augment import ResizedCropFlip, central
from mixbench.vision.images.folders import check_same_classes, class_folders, list_images
from mixbench.vision.images.scenes import looks, one_thing, write_images
from mixbench.vision.images.splits import StreamedSplit
from mixbench.vision.tasks.classification import Classification

CLASS_ARCHIVE = re.compile(r"n\d{8}\.tar")
DEVKIT = "ILSVRC2012_devkit_t12"


class Imagenet(Classification):
    """Classify photographs into 1,000 classes.

    Parameters
    ----------
    classes
        Number of classes; the first ones, sorted by WordNet id, are used.
    side : pixels
        Side of the square images that the model receives in training.
    test_side : pixels
        Side of the square images in validation and test; 0 for `side`.
    crop_pct
        Side of the central crop of a test image as a fraction of the resized image's short side.
    interpolation
        Interpolation of resized images: ``bilinear`` or ``bicubic``, with antialiasing.
    holdout
        Fraction of the official training images that is held out for validation.
    per_class
        Number of training images of each class that are used, drawn by the seed; 0 uses all. The
        images that are held out are among them.
    jitter
        Strength of colour jitter in training: brightness, contrast and saturation are each scaled
        by a factor in 1 ± `jitter`.
    lighting
        Standard deviation of the colour shift in training along the principal components of the
        colours of ImageNet, as a fraction of their standard deviations.
    weights
        Initial weights of training: ``random``, ``timm`` or ``timm:TAG`` (weights that timm
        publishes), ``hf-hub:ORG/NAME`` (those of a model of timm on the Hugging Face Hub) or a
        file.
    """

    version = 1
    data = Data(
        name="imagenet",
        version="ILSVRC 2012",
        licence="ImageNet's terms: non-commercial research and teaching only",
        url="https://image-net.org/challenges/LSVRC/2012/2012-downloads.php",
        file_counts={"train": 1281167, "val": 50000},
        parts={"train": "train", "val": "test"},
        archives=(
            Archive("ILSVRC2012_devkit_t12.tar.gz", "fa75699e90414af021442c21a62c3abf"),
            Archive("ILSVRC2012_img_val.tar", "29b22e2961454d5413ddabcf34fc5622"),
            Archive("ILSVRC2012_img_train.tar", "1d675b47d978889d74fa0da5fadfb00e"),
        ),
        manual_steps="Register at image-net.org with the email address of a research institution, "
        "accept the terms, and download the three archives of ILSVRC 2012, tasks 1 and 2 (145 GB).",
        num_train=1281167,
        num_test=50000,
    )
    synthetic = Synthetic(train=120, test=30, protocols=QUICK_PROTOCOLS)
    by_protocol = {
        "quick": {"classes": 10, "side": 48, "holdout": 0.1},
        "quick_rsb_a3": {
            "classes": 10, "side": 48, "test_side": 64, "crop_pct": 0.95, "holdout": 0.1,
            "jitter": 0.0, "lighting": 0.0, "interpolation": "bicubic",
        },
        "quick_deit": {
            "classes": 10, "side": 48, "holdout": 0.1,
            "jitter": 0.0, "lighting": 0.0, "interpolation": "bicubic",
        },
        "quick_convnext": {
            "classes": 10, "side": 48, "holdout": 0.1,
            "jitter": 0.0, "lighting": 0.0, "interpolation": "bicubic",
        },
        "rsb_a3": {
            "side": 160, "test_side": 224, "crop_pct": 0.95,
            "jitter": 0.0, "lighting": 0.0, "interpolation": "bicubic",
        },
        "deit": {"jitter": 0.0, "lighting": 0.0, "interpolation": "bicubic"},
        "convnext": {"jitter": 0.0, "lighting": 0.0, "interpolation": "bicubic"},
    }  # fmt: skip
    added = ("weights",)
    metrics = TOP1_AND_TOP5
    models = (
        *SMALL_NETS,
        *("vit_small_patch16_224", "convnext_tiny", "small_test_vit", "small_test_convnext"),
    )  # fmt: skip
    takes_timm = True
    protocols = {
        "paper": Recipe(
            model="resnet50",
            epochs=300,
            batch_size=256,
            weight_decay=1e-4,
            milestones=(75, 150, 225),
        ),
        "quick": Recipe(model="resnet8", epochs=20),
        **IMAGENET_FIELD_PROTOCOLS,
    }
    references = (
        *table_row(
            "arXiv:2106.09011", "Table 2, ImageNet", "resnet50",
            {
                "none": 76.27, "mixup": 77.01, "cutmix": 77.41, "random_patchmix": 77.38,
                "guided_patchmix": 77.43,
            },
        ),
        *table_row(
            "Westlake-AI/openmixup@37e1372",
            "docs/en/mixup_benchmarks/Mixup_imagenet.md:112-122, ResNet-50, RSB A3", "resnet50",
            {
                "one_of": 78.08, "mixup": 77.66, "cutmix": 77.62, "manifold_mixup": 77.78,
                "attentivemix": 77.46, "saliencymix": 77.93, "fmix": 77.76, "puzzlemix": 78.02,
                "resizemix": 77.85, "automix": 78.44, "samix": 78.64,
            },
            protocol="rsb_a3",
            remark="the median of the last five epochs on the validation images, trained on all "
            "training images, with soft targets in the binary cross-entropy and an alpha searched "
            "for each method",
        ),
    )  # fmt: skip

    def __init__(  # noqa: PLR0913  # what the field's recipes set
        self,
        classes: Count = 1000,
        side: Count = 224,
        holdout: Fraction = 0.02,
        *,
        jitter: Fraction = 0.4,
        lighting: Fraction = 0.1,
        test_side: CountOrZero = 0,
        crop_pct: PositiveFraction = 0.875,
        interpolation: Literal["bilinear", "bicubic"] = "bilinear",
        per_class: CountOrZero = 0,
        weights: Weights = "random",
    ) -> None:
        super().__init__(classes, (side, side))
        self.holdout, self.per_class, self.weights = holdout, per_class, weights
        self._augment = ResizedCropFlip(
            side, jitter=jitter, lighting=lighting, interpolation=interpolation
        )
        self._test_side = test_side or side
        self._fit = central(self._test_side, crop_pct, interpolation)

    @property
    def test_size(self) -> tuple[int, int]:
        """Height and width of the images in validation and test."""
        return self._test_side, self._test_side

    def load(self, part: Part, folder: Path, seed: int) -> Split:
        """List the test images (official validation), or the training or validation images."""
        root = folder / ("val" if part == "test" else "train")
        listing = list_images(root, self.names_of(class_folders(root), root))
        if part != "test":
            listing = listing.only(self.in_part(part, listing.classes, seed))
        index = ClassIndex(listing.classes, self.num_classes)
        return StreamedSplit(
            *(listing.paths, listing.classes, index, self.normalization, self._augment),
            fit=self._fit,
        )

    def class_names(self, folder: Path) -> list[str]:
        """Return the sorted WordNet ids of the classes that are used."""
        return self.names_of(class_folders(folder / "val"), folder / "val")

    def check_data(self, folder: Path) -> None:
        """Check that the two folders have the same classes, and that no image is in two splits."""
        check_same_classes(folder / "train", folder / "val")
        super().check_data(folder)

    def unpack(self, archive: Path, folder: Path) -> None:
        """Unpack the devkit, or the training or validation images into one folder per class."""
        if archive.name.startswith(DEVKIT):
            unpack(archive, folder)
        elif "val" in archive.name:
            unpack_validation(archive, folder)
        else:
            unpack_training(archive, folder)

    def synthesize(self, folder: Path, amount: Synthetic) -> None:
        """Write synthetic landscape-format images of one object each in the same folders."""
        kinds = looks(self.num_classes)
        height = round(1.2 * self.image_size[0])
        for number, (part, count) in enumerate((("train", amount.train), ("val", amount.test))):
            rng = generator(amount.seed, "synthetic", number)
            classes = torch.arange(self.num_classes).repeat_interleave(count)
            for name in range(self.num_classes):
                (folder / part / f"n{name:08}").mkdir(parents=True)
            paths = [
                folder / part / f"n{c:08}" / f"{part}_{i:08}.JPEG"
                for i, c in enumerate(classes.tolist())
            ]
            layout = one_thing(classes, rng, (0.3, 0.45))
            write_images(paths, layout, kinds, (height, round(height * 4 / 3)), rng)


def unpack_training(archive: Path, folder: Path) -> None:
    """Unpack an archive that holds one archive per class into ``train/WNID/``.

    Raises
    ------
    DataError
        If the archive holds anything else.
    """
    with opened_tar(archive) as outer:
        for member in outer:
            if not (member.isfile() and CLASS_ARCHIVE.fullmatch(member.name)):
                raise DataError(
                    f"The archive {archive} cannot be unpacked: it must hold one archive per class "
                    f"such as n01440764.tar (got {member.name!r}). Download it again."
                )
            with tarfile.open(fileobj=outer.extractfile(member)) as images:
                unpack_tar(images, archive, folder / "train" / Path(member.name).stem)


def unpack_validation(archive: Path, folder: Path) -> None:
    """Unpack the validation images into ``val/WNID/`` according to the labels in the devkit.

    Raises
    ------
    DataError
        If the devkit is missing or does not have a label for each image.
    """
    wnids = validation_wnids(folder / DEVKIT / "data")
    loose = folder / "val.unpacking"
    unpack(archive, loose)
    images = sorted(loose.iterdir())
    if len(images) != len(wnids):
        raise DataError(
            f"{archive} must have an image for each label of the devkit (got {len(images)} images "
            f"and {len(wnids)} labels)."
        )
    for image, wnid in zip(images, wnids, strict=True):
        place = folder / "val" / wnid
        place.mkdir(parents=True, exist_ok=True)
        image.rename(place / image.name)
    shutil.rmtree(loose)


def validation_wnids(devkit: Path) -> list[str]:
    """Return the WordNet id of every official validation image, in the order of the file names.

    Raises
    ------
    DataError
        If a file of the devkit is missing or has another format.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        synsets = loadmat(devkit / "meta.mat", squeeze_me=True)["synsets"]
        lines = (devkit / "ILSVRC2012_validation_ground_truth.txt").read_text().split()
        wnids = {int(s["ILSVRC2012_ID"]): str(s["WNID"]) for s in synsets}
        return [wnids[int(line)] for line in lines]
    except (OSError, ValueError, KeyError, IndexError, MatReadError) as error:
        raise DataError(
            f"{devkit} must hold meta.mat and ILSVRC2012_validation_ground_truth.txt in the format "
            f"of the official devkit ({error})."
        ) from error
