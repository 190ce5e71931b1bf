"""Pascal VOC detection: where on a photograph which of 20 kinds of objects are, by Faster R-CNN.

Data     Everingham et al., The Pascal Visual Object Classes Challenge, 2007 and 2012:
         VOCdevkit/VOC2007/ and VOCdevkit/VOC2012/ with Annotations/, ImageSets/Main/ and
         JPEGImages/, from the archives; or 2007 alone. The two variants are never compared
Licence  of the photographs' authors (Flickr)
Split    test: the official 4,952 images of 2007; validation: 10 % of the 16,551 of both trainvals
Recipe   paper: 12 epochs of all images and their mirror images in batches of 16, from a rate of
         0.01, a tenth of it after 9 and again after 11. The PatchMix paper (arXiv:2106.09011) names
         the task and gives no number and no recipe; the data is CutMix's (arXiv:1905.04899, §4.3)
Differs  fine-tuning is plain, for boxes of mixed images mean nothing yet: the method is that of
         pre-training. Images are fitted into squares of 800 pixels, whose short sides are as a
         rule the usual 600, and are not resized at random; no warm-up
Expect   protocol paper, resnet50: 75.6 % mAP after plain pre-training (CutMix), by a Faster R-CNN
         without a feature pyramid; with one, a few points more
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from mixbench.contract import Backbone, Output, Part, Predictions, Score, Split, Task
from mixbench.declare import (
    PRETRAINED_ON_IMAGENET,
    SMALL_NETS,
    VOC_2007,
    VOC_2007_AND_2012,
    Count,
    Fraction,
    Metric,
    Recipe,
    Synthetic,
    Weights,
    table_row,
)
from mixbench.errors import BadParameter, DataError
from mixbench.streams import generator
from mixbench.vision.average_precision import mean_average_precision
from mixbench.vision.detection.annotations import CLASSES, Annotated, listed, read_annotation
from mixbench.vision.detection.boxes import letterbox, mirrored, targets_of
from mixbench.vision.detection.coco_ap import coco_ap
from mixbench.vision.detection.detector import Detector
from mixbench.vision.detection.synthetic import write_scenes
from mixbench.vision.detection.voc_ap import detection_curves
from mixbench.vision.images.decode import read_image
from mixbench.vision.images.scenes import looks
from mixbench.vision.images.splits import IMAGENET_NORMALIZATION, StreamedSplit, held_out_share
from mixbench.vision.models.build import build
from mixbench.vision.models.weights import start_from

DEVKIT = "VOCdevkit"
TRAINING = {"voc0712": ("VOC2007", "VOC2012"), "voc07": ("VOC2007",)}
SMALL_SIDE = 128  # pixels up to which nets for small images are taken
AT_ONCE = 8  # images whose pyramids a device's memory holds


class VocDetection(Task):
    """Find the objects on a photograph, starting from a model of ImageNet.

    Boxes that leave the image are cut off at its edges, and objects of which no pixel is left then
    are left out. Images without objects are trained on and tested like others. Difficult objects
    are not trained on, and count neither way at test.

    Parameters
    ----------
    variant
        Whose training images: of 2007 and 2012, or of 2007 alone.
    classes
        The first so many of the classes; objects of others are left out.
    side : pixels
        Of the squares into which images are fitted.
    holdout
        The share of the training images that is held out for validation.
    weights
        What the encoder starts from: the same method's own model of ImageNet (``pretrained``, or
        ``synthetic`` of generated images), what others published, ``random`` weights or a file.
    mix_in
        Where the method mixes: in ``pretrain``-ing.
    width
        Of the feature pyramid.
    proposals
        Regions that are proposed in training; half as many at test.
    regions
        How many of an image's are judged in training.
    """

    version = 1
    data = VOC_2007_AND_2012
    variants = {"voc0712": data, "voc07": VOC_2007}
    synthetic = Synthetic(train=60, test=20, protocols=("quick",))
    needs = PRETRAINED_ON_IMAGENET
    by_protocol = {
        "quick": {"classes": 8, "side": 64, "width": 48, "proposals": 200, "regions": 32}
    }
    metrics = (
        Metric("map_voc07", "%", higher_is_better=True, primary=True),
        Metric("map_voc10", "%", higher_is_better=True),
        Metric("coco_ap", "%", higher_is_better=True),
        Metric("coco_ap50", "%", higher_is_better=True),
        Metric("coco_ap75", "%", higher_is_better=True),
    )
    models = SMALL_NETS
    takes_timm = True
    protocols = {
        "paper": Recipe(
            model="resnet50",
            epochs=12,
            batch_size=16,
            lr=0.01,
            nesterov=False,
            weight_decay=1e-4,
            milestones=(9, 11),
            tail=2,
        ),
        "quick": Recipe(model="resnet8", epochs=8, batch_size=16, lr=0.02, tail=3),
    }
    references = table_row(
        "clovaai/CutMix-PyTorch@2d8eb68, README.md", "Detection (Faster-RCNN)", "resnet50",
        {"none": 75.6, "mixup": 73.9, "cutmix": 76.7},
        metric="map_voc07", remark="another Faster R-CNN, by another recipe",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913  # what users set
        self,
        variant: Literal["voc0712", "voc07"] = "voc0712",
        classes: Count = 20,
        side: Count = 800,
        holdout: Fraction = 0.1,
        weights: Weights = "pretrained",
        mix_in: Literal["pretrain"] = "pretrain",  # noqa: ARG002  # read where cells are planned
        width: Count = 256,
        proposals: Count = 2000,
        regions: Count = 512,
    ) -> None:
        if classes > len(CLASSES):
            raise BadParameter(f"voc_detection has {len(CLASSES)} classes (got classes={classes}).")
        self.variant = variant
        self.classes = classes
        self.image_size = (side, side)
        self.holdout = holdout
        self.weights = weights
        self._limits = {"width": width, "proposals": proposals, "regions": regions}

    def build(self, model: str) -> Backbone:
        """Return a detector around a backbone."""
        side = self.image_size[0]
        encoder = build(model, classes=1, size=self.image_size, small=side <= SMALL_SIDE)
        trained = self.weights != "random"
        return Detector(encoder, classes=self.classes, side=side, trained=trained, **self._limits)

    def start(self, model: Backbone, trained: Mapping[str, Backbone]) -> None:
        """Start the encoder from the weights that `weights` names."""
        start_from(model.get_submodule("encoder"), self.weights, trained)

    def load(self, part: Part, folder: Path, seed: int) -> Split:
        """List the official test images, or training images on one side of the split.

        Training images are there twice, the second time mirrored.

        Raises
        ------
        DataError
            If no image of the part has an object.
        """
        lists = [("VOC2007", "test")]
        if part != "test":
            lists = [(year, "trainval") for year in TRAINING[self.variant]]
        found = [image for year, name in lists for image in listed(folder / DEVKIT / year, name)]
        if part != "test":
            held = held_out_share(len(found), self.holdout, generator(seed, "split")).tolist()
            pairs = zip(found, held, strict=True)
            found = [image for image, is_out in pairs if is_out == (part == "validation")]
        images = [self._annotated(annotation) for _, annotation in found]
        if not any(image.things for image in images):
            raise DataError(f"{folder} has no object on any image of its part {part}.")
        paths = [path for path, _ in found]
        return BoxSplit(paths, targets_of(images), self.image_size[0], twice=part == "train")

    def _annotated(self, path: Path) -> Annotated:
        """Return an annotation with the objects of the classes that take part."""
        size, things = read_annotation(path)
        return Annotated(size, [thing for thing in things if thing.class_id < self.classes])

    def class_names(self, folder: Path) -> list[str]:  # noqa: ARG002  # they are always the same
        """Return the names of the classes that take part."""
        return list(CLASSES[: self.classes])

    def predict(
        self,
        model: Backbone,
        read: Callable[[Output], Tensor],
        images: Tensor,
        targets: Tensor,
    ) -> dict[str, Tensor]:
        """Return the boxes that are found on every image, (B, 100, 6), the likeliest first."""
        assert isinstance(model, Detector)
        some = zip(images.split(AT_ONCE), targets.split(AT_ONCE), strict=True)
        return {"boxes": torch.cat([model.detect(read(model(x)), frames) for x, frames in some])}

    def score(self, predictions: Predictions, targets: Tensor) -> dict[str, Score]:
        """Return the mean average precision as VOC counts it, in two ways, and as COCO does."""
        found = predictions["boxes"]
        curves = detection_curves(found, targets, self.classes)
        coco = coco_ap(found, targets, self.classes)
        return {
            "map_voc07": mean_average_precision(curves, "voc07"),
            "map_voc10": mean_average_precision(curves, "voc10"),
            "coco_ap": Score(100 * coco.ap),
            "coco_ap50": Score(100 * coco.ap50),
            "coco_ap75": Score(100 * coco.ap75),
        }

    def synthesize(self, folder: Path, amount: Synthetic) -> None:
        """Write generated scenes of some things each with annotations in the same folders.

        The amounts are images for every class, of which each shows one to three; training images
        are dealt out over the years.
        """
        kinds, years = looks(self.classes), TRAINING[self.variant]
        lists = [(year, "trainval", amount.train * self.classes // len(years)) for year in years]
        lists.append(("VOC2007", "test", amount.test * self.classes))
        for number, (year, name, count) in enumerate(lists):
            names = [f"{number}{i:05}" for i in range(count)]
            rng = generator(amount.seed, "synthetic", number)
            write_scenes(folder / DEVKIT / year, name, names, kinds, rng)


class BoxSplit(StreamedSplit):
    """Images with their objects; of training images, the mirror images follow.

    Parameters
    ----------
    targets : (N, M, 6)
        Of the images as they are stored.
    side : pixels
        Of the squares into which they are fitted.
    """

    def __init__(self, paths: list[Path], targets: Tensor, side: int, *, twice: bool) -> None:
        both = torch.cat([targets, mirrored(targets)]) if twice else targets
        super().__init__(
            *(paths, both, None, IMAGENET_NORMALIZATION), fit=lambda image: letterbox(image, side)
        )

    def path(self, item: int) -> Path:
        """Return the file of an item's image."""
        return super().path(item % len(self._paths))

    def _one(self, item: int, draws: Tensor | None) -> Tensor:  # noqa: ARG002  # nothing is drawn
        image = read_image(self.path(item))
        width, height = (int(value) for value in self.targets[item, 0, 2:4])
        if image.shape[1:] != (height, width):
            raise DataError(
                f"{self.path(item)} must have {width} x {height} pixels, as its annotation says "
                f"(got {image.shape[2]} x {image.shape[1]})."
            )
        return self._fit(image.flip(2) if item >= len(self._paths) else image)
