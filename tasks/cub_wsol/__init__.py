"""CUB-200-2011 localization: locate birds with a classifier that is trained without boxes.

Data     Wah et al., The Caltech-UCSD Birds-200-2011 Dataset, 2011: CUB_200_2011/ as published;
         optionally CUBV2 of Choe et al. with the metadata of clovaai/wsolevaluation, and the masks
         of segmentations.tgz, which give PxAP (`variant=masks`)
Licence  non-commercial research and education; the photographs belong to their authors
Split    test: the official 5,794 test images; validation: 10 % of every class of the official 5,994
         training images. With `cubv2`, validation uses the 1,000 images of CUBV2, and all 5,994
         official training images are used for training
Recipe   paper: the recipe of clovaai/wsolevaluation@96f4b88, main.py and wsol/, which the PatchMix
         paper (arXiv:2106.09011, §5.2) follows: 50 epochs, starting from ImageNet weights, with a
         learning rate for each model
Differs  all methods use the learning rates of the CAM baseline (the reference tuned CutMix
         separately). VGG-16 also has a large feature map, 28x28; set cub_wsol.large_map=false for
         the published 14x14. The reference computes PxAP for other data only; here, a pixel
         belongs to the bird if more than half of the masks' authors say so
Expect   protocol paper, resnet50: 63.0 % MaxBoxAccV2 without mixing; reproductions of the reference
         differ by 4 points. Centred squares, which do not depend on the image, get 57.0 %
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from torch import Tensor

from mixbench.contract import Part, Split
from mixbench.datasets.archives import Finding
from mixbench.declare import (
    CUB,
    CUB_WITH_MASKS,
    MAX_BOX_ACC,
    PIXEL_PRECISION,
    WSOL_WEIGHTS,
    Count,
    Folder,
    Fraction,
    Recipe,
    Synthetic,
    Weights,
    table_row,
)
from mixbench.errors import BadParameter
from mixbench.vision.localization.task import TrainedLocalization

from .files import (
    MASKS,
    ROOT,
    Birds,
    Located,
    chosen_birds,
    class_lines,
    compare_metadata,
    located,
    read_masks,
    read_metadata,
)
from .synthetic import write_birds


class CubWsol(TrainedLocalization):
    """Classify birds and locate them by the class activation maps of the classifier.

    Parameters
    ----------
    classes
        Number of classes; the first ones in the order of the data set are used.
    side : pixels
        Side of the squares to which images are resized, regardless of their aspect ratios. Boxes
        are always evaluated in squares of 224 pixels.
    holdout
        Fraction of the official training images that is held out for validation. Not used if
        `cubv2` is set.
    large_map
        Whether the last feature maps of resnet50, vgg16 and inception_v3 are 28x28 instead of
        14x14.
    weights
        Initial weights of the model: ``published`` for published ImageNet weights, ``random``, or a
        path of a file of weights.
    cubv2
        Folder with the images of CUBV2 and the four files of its metadata in wsolevaluation. If
        set, CUBV2 is the validation split. Not with masks, which CUBV2 does not have.
    variant
        ``boxes``, or ``masks`` to compute PxAP (metric `pxap`) as well, from the folder
        ``segmentations``.
    """

    version = 1
    data = CUB
    variants = {"boxes": CUB, "masks": CUB_WITH_MASKS}
    added = ("variant",)
    published = WSOL_WEIGHTS
    synthetic = Synthetic(train=90, test=30, protocols=("quick",))
    by_protocol = {"quick": {"classes": 6, "side": 48, "holdout": 0.15, "weights": "random"}}
    metrics = MAX_BOX_ACC
    models = ("resnet8", "resnet50", "vgg16", "inception_v3")
    takes_timm = True
    protocols = {
        "paper": Recipe(
            model="resnet50",
            epochs=50,
            batch_size=32,
            lr=0.00023222617,
            head_lr_mult=10,
            weight_decay=1e-4,
            milestones=(14, 29, 44),
        ),
        "quick": Recipe(model="resnet8", epochs=25, batch_size=30, lr=0.05, tail=1, threads=2),
    }
    by_model = {
        "paper": {
            "vgg16": {"lr": 0.00001268269, "weight_decay": 5e-4},
            "inception_v3": {"lr": 0.00224844746, "weight_decay": 5e-4},
        }
    }
    references = (
        *table_row(
            "arXiv:2106.09011", "Table 3, ResNet50", "resnet50",
            {"none": 63.0, "mixup": 55.8, "cutmix": 62.8, "random_patchmix": 63.9},
            metric="max_box_acc_v2",
        ),
        *table_row(
            "arXiv:2106.09011", "Table 3, VGG16", "vgg16",
            {"none": 55.6, "mixup": 51.9, "cutmix": 54.9, "random_patchmix": 57.3},
            metric="max_box_acc_v2",
            remark="8 points below the reference's VGG16 and below centred squares (57.0)",
        ),
        *table_row(
            "arXiv:2106.09011", "Table 3, Inceptionv3", "inception_v3",
            {"none": 56.7, "mixup": 53.4, "cutmix": 57.4, "random_patchmix": 57.7},
            metric="max_box_acc_v2",
            remark="centred squares get 57.0",
        ),
        *table_row(
            "arXiv:2001.07437", "table of clovaai/wsolevaluation, ResNet50", "resnet50",
            {"none": 63.0, "cutmix": 62.8},
            metric="max_box_acc_v2",
        ),
        *table_row(
            "arXiv:2001.07437", "table of clovaai/wsolevaluation, VGG16", "vgg16",
            {"none": 63.7, "cutmix": 62.3},
            metric="max_box_acc_v2",
            remark="with maps of 14x14",
        ),
        *table_row(
            "arXiv:2001.07437", "table of clovaai/wsolevaluation, InceptionV3", "inception_v3",
            {"none": 56.7, "cutmix": 57.5},
            metric="max_box_acc_v2",
        ),
    )  # fmt: skip

    def __init__(  # noqa: PLR0913  # the parameters of the task
        self,
        classes: Count = 200,
        side: Count = 224,
        holdout: Fraction = 0.1,
        *,
        large_map: bool = True,
        weights: Weights = "published",
        cubv2: Folder = "",
        variant: Literal["boxes", "masks"] = "boxes",
    ) -> None:
        if cubv2 and variant == "masks":
            raise BadParameter("cubv2 must be empty with variant=masks: CUBV2 has no masks.")
        super().__init__(classes, side, large_map=large_map, weights=weights)
        self.holdout, self.cubv2, self.variant = holdout, cubv2, variant
        if variant == "masks":
            self.metrics = PIXEL_PRECISION

    @property
    def held_out(self) -> float:
        """Fraction of the training images that is held out; none if CUBV2 is the validation."""
        return 0.0 if self.cubv2 else super().held_out

    @property
    def has_validation(self) -> bool:
        """Whether there is a validation split: CUBV2 or held-out images."""
        return bool(self.cubv2) or super().has_validation

    def load(self, part: Part, folder: Path, seed: int) -> Split:
        """Return the test images, the training images, or the validation images (or CUBV2).

        Targets of the training split are the classes, (N,). Targets of the other splits are the
        classes and the ground-truth boxes in 224x224 images, (N, 1 + 4 n) int64, followed by the
        masks if the variant has them.
        """
        images = folder / ROOT / "images"
        if part == "validation" and self.cubv2:
            images = Path(self.cubv2)
            return self._measured(read_metadata(images, images), images, None)
        birds = chosen_birds(folder / ROOT, self)
        if part == "test":
            birds = birds.only(~birds.train)
            return self._measured(located(birds, images), images, self._masks(folder, birds))
        birds = birds.only(birds.train)
        if not self.cubv2:
            birds = birds.only(self.in_part(part, birds.classes, seed))
        if part == "validation":
            return self._measured(located(birds, images), images, self._masks(folder, birds))
        return self.split([images / name for name in birds.names], birds.classes)

    def _masks(self, folder: Path, birds: Birds) -> Tensor | None:
        """Return the masks of birds, packed; None without masks."""
        if self.variant == "boxes":
            return None
        return read_masks(folder / MASKS, folder / ROOT / "images", birds.names)

    def _measured(self, found: Located, images: Path, masks: Tensor | None) -> Split:
        """Return a split with ground-truth boxes."""
        paths = [images / name for name in found.names]
        return self.measured(paths, found.classes, found.boxes, found.sizes, masks)

    def class_names(self, folder: Path) -> list[str]:
        """Return the names of the classes that are used."""
        return self.names_of(class_lines(folder / ROOT), folder / ROOT / "classes.txt")

    def verify(self, folder: Path) -> Iterator[Finding]:
        """Compare the boxes and image sizes with the published metadata of wsolevaluation."""
        return compare_metadata(folder / ROOT)

    def synthesize(self, folder: Path, amount: Synthetic) -> None:
        """Write synthetic images of birds on cluttered backgrounds in the same format."""
        masks = folder / MASKS if self.variant == "masks" else None
        write_birds(folder / ROOT, self.num_classes, amount, masks)
