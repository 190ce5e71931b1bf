"""ImageNet-C: the validation images of ImageNet under fifteen corruptions at five severities.

Data     Hendrycks & Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and
         Perturbations, ICLR 2019, arXiv:1903.12261: CORRUPTION/SEVERITY/WNID/*.JPEG, squares of 224
         pixels, as the published archives unpack
Licence  CC BY 4.0; the photographs' own terms are ImageNet's
Split    test: 3,750,000 images; the model is trained by imagenet with the same method and seed
Source   images as they are, as in hendrycks/robustness@8190fe3, ImageNet-C/test.py:241-244; mCE in
         parts of AlexNet's errors, as in google-research/augmix@9b9824c, imagenet.py:148-194
Differs  augmix resizes to 256 pixels and cuts out 224
Expect   protocol paper, resnet50: 76.7 % mCE without mixing (hendrycks/robustness@8190fe3, README)
"""

from functools import partial
from itertools import product
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from mixbench.contract import Part, Split
from mixbench.declare import CORRUPTED, Archive, Data, Synthetic, Weights
from mixbench.errors import DataError
from mixbench.images.augment import resize
from mixbench.images.folders import class_folders, list_images
from mixbench.images.lists import first_names
from mixbench.images.splits import StreamedSplit
from mixbench.robustness.corrupted import Corrupted
from mixbench.robustness.corruptions import CORRUPTIONS, SEVERITIES, conditions
from mixbench.robustness.generated import corrupted

QUALITY = 95  # of generated files: high, so that JPEG is a corruption only where it is meant to be


class ImagenetC(Corrupted):
    """Score classifiers of ImageNet on corrupted images.

    Parameters
    ----------
    weights
        Which model is scored: what training with the same method and seed ended with
        (``pretrained``), what timm publishes, or that in a file.
    """

    version = 1
    evaluates = "imagenet"
    data = Data(
        name="imagenet_c",
        version="1, 2019",
        licence="CC BY 4.0; of the photographs, ImageNet's terms",
        url="https://zenodo.org/records/2235448",
        trees={
            "gaussian_noise": 250000,
            "shot_noise": 250000,
            "impulse_noise": 250000,
            "defocus_blur": 250000,
            "glass_blur": 250000,
            "motion_blur": 250000,
            "zoom_blur": 250000,
            "snow": 250000,
            "frost": 250000,
            "fog": 250000,
            "brightness": 250000,
            "contrast": 250000,
            "elastic_transform": 250000,
            "pixelate": 250000,
            "jpeg_compression": 250000,
        },
        archives=(
            Archive(
                "noise.tar",
                "e80562d7f6c3f8834afb1ecf27252745",
                "https://zenodo.org/records/2235448/files/noise.tar",
            ),
            Archive(
                "blur.tar",
                "2d8e81fdd8e07fef67b9334fa635e45c",
                "https://zenodo.org/records/2235448/files/blur.tar",
            ),
            Archive(
                "weather.tar",
                "33ffea4db4d93fe4a428c40a6ce0c25d",
                "https://zenodo.org/records/2235448/files/weather.tar",
            ),
            Archive(
                "digital.tar",
                "89157860d7b10d5797849337ca2e5c03",
                "https://zenodo.org/records/2235448/files/digital.tar",
            ),
        ),
    )
    metrics = CORRUPTED
    of_alexnet = True

    def __init__(self, weights: Weights = "pretrained") -> None:
        super().__init__(weights)

    def load(self, part: Part, folder: Path, seed: int) -> Split:  # noqa: ARG002  # all is the test part
        """List the images of the classes that take part, under every corruption."""
        first = folder / CORRUPTIONS[0] / "1"
        names = first_names(class_folders(first), self.num_classes, self.data.name, first)
        paths: list[Path] = []
        classes: list[Tensor] = []
        for name, severity in product(CORRUPTIONS, range(1, SEVERITIES + 1)):
            listing = list_images(folder / name / str(severity), names)
            if classes and not torch.equal(listing.classes, classes[0]):
                raise DataError(
                    f"{folder / name / str(severity)} must hold as many images of every class as "
                    f"{first} does."
                )
            paths += listing.paths
            classes.append(listing.classes)
        targets = torch.cat([torch.cat(classes)[:, None], conditions(len(classes[0]))], 1)
        fit = partial(square, side=self.image_size[0])
        return StreamedSplit(paths, targets, None, self.pixels, fit=fit)

    def synthesize(self, folder: Path, amount: Synthetic) -> None:
        """Write the subject's generated test images, corrupted, in the same folders."""
        images, classes = self.clean(folder, amount)
        for name, severity in product(CORRUPTIONS, range(1, SEVERITIES + 1)):
            place = folder / name / str(severity)
            for wnid in classes.unique().tolist():
                (place / f"n{wnid:08}").mkdir(parents=True)
            changed = corrupted(images, name, severity, amount.seed).permute(0, 2, 3, 1).numpy()
            for number, (row, wnid) in enumerate(zip(changed, classes.tolist(), strict=True)):
                path = place / f"n{wnid:08}" / f"val_{number:08}.JPEG"
                Image.fromarray(row).save(path, quality=QUALITY)


def square(image: Tensor, side: int) -> Tensor:
    """Return an image of 224 pixels as it is where the model takes that; else resized."""
    return image if image.shape[1:] == (side, side) else resize(image, (side, side))
