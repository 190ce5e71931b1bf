"""Pascal VOC detection: locate objects of 20 classes in photographs with a Faster R-CNN.

Data     Everingham et al., The Pascal Visual Object Classes Challenge, 2007 and 2012:
         VOCdevkit/VOC2007/ and VOCdevkit/VOC2012/ with Annotations/, ImageSets/Main/ and
         JPEGImages/, from the archives; or 2007 alone. The two variants are never compared
Licence  the photographs belong to their authors (Flickr)
Split    test: the official 4,952 test images of 2007; validation: 10 % of the 16,551 images of both
         trainval lists
Recipe   paper: 12 epochs over all images and their mirror images in batches of 16, with a learning
         rate of 0.01 that is divided by ten after epochs 9 and 11. The PatchMix paper
         (arXiv:2106.09011) names the task and gives neither numbers nor a recipe; the data is that
         of CutMix (arXiv:1905.04899, §4.3)
Differs  the method mixes in pre-training only, because boxes of mixed images are not defined.
         Images are resized to fit into squares of 800 pixels, so that most have the usual shorter
         side of 600 pixels; there is no random resizing and no warm-up
Expect   protocol paper, resnet50: 75.6 % mAP after pre-training without mixing (CutMix), with a
         Faster R-CNN without a feature pyramid; a few points more with one, as here
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
SMALL_SIDE = 128  # largest side, in pixels, for which models for small images are used
AT_ONCE = 8  # images per forward pass, limited by the memory for feature pyramids


class VocDetection(Task):
    """Detect the objects in a photograph with an encoder pre-trained on ImageNet.

    Boxes are clipped at the image edges, and objects without a remaining pixel are dropped. Images
    without objects are used in training and testing like all others. Difficult objects are not used
    in training, and detections of them count neither as correct nor as wrong in testing.

    Parameters
    ----------
    variant
        Source of the training images: ``voc0712`` for VOC 2007 and 2012, ``voc07`` for 2007 alone.
    classes
        Number of object classes; the first ones are used and objects of all others are ignored.
    side : pixels
        Side of the squares into which images are fitted.
    holdout
        Fraction of the official training images that is held out for validation.
    weights
        Initial weights of the encoder. ``pretrained``: from the ImageNet cell of the same method.
        ``synthetic``: the same, trained on synthetic images. ``timm`` or ``timm:TAG``: published by
        timm. ``random``: no pre-training. Any other value is a path of a file of weights.
    mix_in
        Stage in which the method mixes: ``pretrain`` is the only choice.
    width
        Number of channels of the feature pyramid.
    proposals
        Number of region proposals per image in training; half as many are used in testing.
    regions
        Number of region proposals per image for which the loss is computed in training.
    """

    version = 1
    data = VOC_2007_AND_2012
    variants = {"voc0712": data, "voc07": VOC_2007}
    items_per_image = 2  # the second time mirrored
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
        metric="map_voc07", remark="with another Faster R-CNN and another recipe",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913  # these are the parameters of the task
        self,
        variant: Literal["voc0712", "voc07"] = "voc0712",
        classes: Count = 20,
        side: Count = 800,
        holdout: Fraction = 0.1,
        weights: Weights = "pretrained",
        mix_in: Literal["pretrain"] = "pretrain",  # noqa: ARG002  # used when cells are planned
        width: Count = 256,
        proposals: Count = 2000,
        regions: Count = 512,
    ) -> None:
        if classes > len(CLASSES):
            raise BadParameter(f"classes must be at most {len(CLASSES)} (got {classes}).")
        self.variant = variant
        self.classes = classes
        self.image_size = (side, side)
        self.holdout = holdout
        self.weights = weights
        self._limits = {"width": width, "proposals": proposals, "regions": regions}

    def build(self, model: str) -> Backbone:
        """Return a detector with the given model as its backbone."""
        side = self.image_size[0]
        small = side <= SMALL_SIDE
        encoder = build(model, classes=1, size=self.image_size, small=small)
        trained = self.weights != "random"
        return Detector(encoder, classes=self.classes, side=side, trained=trained, **self._limits)

    def start(self, model: Backbone, trained: Mapping[str, Backbone]) -> None:
        """Load the initial weights of the encoder, as given by `weights`."""
        start_from(model.get_submodule("encoder"), self.weights, trained)

    def load(self, part: Part, folder: Path, seed: int) -> Split:
        """List the test images, or the training or validation images of trainval.

        The training split contains every image twice, the second time mirrored.

        Raises
        ------
        DataError
            If no image of the split has an object.
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
            raise DataError(f"{folder} must have at least one object in its {part} split (got 0).")
        paths = [path for path, _ in found]
        return BoxSplit(paths, targets_of(images), self.image_size[0], twice=part == "train")

    def _annotated(self, path: Path) -> Annotated:
        """Read an annotation and keep the objects of the classes that are used."""
        size, things = read_annotation(path)
        return Annotated(size, [thing for thing in things if thing.class_id < self.classes])

    def class_names(self, folder: Path) -> list[str]:  # noqa: ARG002  # VOC's classes are fixed
        """Return the names of the classes that are used."""
        return list(CLASSES[: self.classes])

    def predict(
        self,
        model: Backbone,
        read: Callable[[Output], Tensor],
        images: Tensor,
        targets: Tensor,
    ) -> dict[str, Tensor]:
        """Return the detected boxes of every image, (B, 100, 6), sorted by descending score."""
        assert isinstance(model, Detector)
        some = zip(images.split(AT_ONCE), targets.split(AT_ONCE), strict=True)
        return {"boxes": torch.cat([model.detect(read(model(x)), frames) for x, frames in some])}

    def score(self, predictions: Predictions, targets: Tensor) -> dict[str, Score]:
        """Return the mean average precision of VOC 2007, of VOC 2010 and of COCO."""
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
        """Write synthetic images with annotations in the same folders.

        Each image shows one to three objects. The amounts are numbers of images per class; the
        training images are divided equally among the years.
        """
        kinds, years = looks(self.classes), TRAINING[self.variant]
        lists = [(year, "trainval", amount.train * self.classes // len(years)) for year in years]
        lists.append(("VOC2007", "test", amount.test * self.classes))
        for number, (year, name, count) in enumerate(lists):
            names = [f"{number}{i:05}" for i in range(count)]
            rng = generator(amount.seed, "synthetic", number)
            write_scenes(folder / DEVKIT / year, name, names, kinds, rng)


class BoxSplit(StreamedSplit):
    """Images with their objects, optionally followed by all mirror images.

    Parameters
    ----------
    paths
        Files of the N images.
    targets : (N, M, 6)
        Objects of the images as stored, before images are resized.
    side : pixels
        Side of the squares into which images are fitted.
    twice
        Whether the mirror images follow.
    """

    def __init__(self, paths: list[Path], targets: Tensor, side: int, *, twice: bool) -> None:
        both = torch.cat([targets, mirrored(targets)]) if twice else targets
        super().__init__(
            *(paths, both, None, IMAGENET_NORMALIZATION), fit=lambda image: letterbox(image, side)
        )

    def path(self, item: int) -> Path:
        """Return the image file of an item."""
        return super().path(item % len(self._paths))

    def _one(self, item: int, draws: Tensor | None) -> Tensor:  # noqa: ARG002  # not random
        image = read_image(self.path(item))
        width, height = (int(value) for value in self.targets[item, 0, 2:4])
        if image.shape[1:] != (height, width):
            raise DataError(
                f"{self.path(item)} must have {width} x {height} pixels according to its "
                f"annotation (got {image.shape[2]} x {image.shape[1]})."
            )
        return self._fit(image.flip(2) if item >= len(self._paths) else image)
