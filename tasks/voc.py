"""Pascal VOC 2007: 9,963 photographs with 20 kinds of objects, found by a model of ImageNet.

Data     Everingham et al., The Pascal Visual Object Classes Challenge 2007: VOCdevkit/VOC2007/ with
         Annotations/, ImageSets/Main/ and JPEGImages/, from both archives
Licence  of the photographs' authors (Flickr)
Split    test: the official 4,952 images; validation: 10 % of the official 5,011 of trainval
Recipe   paper: fine-tuning at 448 pixels for 30 epochs with the binary cross-entropy, the
         classifier at ten times the rate; the PatchMix paper (arXiv:2106.09011, §5.3) states none
Differs  an object that is only there as difficult counts as there in training, and not at all in
         the scores, as in megvii-research/ML-GCN@5517d6f, voc.py and util.py:229-248
Expect   protocol paper, resnet50: 92.1 % mAP after plain pre-training (the paper)
"""

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from mixbench.contract import Part, Split
from mixbench.declare import (
    MEAN_AVERAGE_PRECISION,
    MULTI_LABEL_FINE_TUNING,
    SMALL_NETS,
    VOC_2007,
    Count,
    Fraction,
    Synthetic,
    Weights,
    pretrained_on,
    table_row,
)
from mixbench.detection.annotations import CLASSES, Annotated, listed, read_annotation
from mixbench.detection.generated import write_scenes
from mixbench.errors import BadParameter
from mixbench.images.scenes import looks
from mixbench.multilabel import MultiLabel
from mixbench.streams import generator

ROOT = "VOCdevkit/VOC2007"


class Voc(MultiLabel):
    """Say which kinds of objects a photograph shows, starting from a model of ImageNet.

    Parameters
    ----------
    classes
        The first so many of the classes; images of none of them are left out.
    side : pixels
        Of the squares to which images are resized, whatever their shapes.
    holdout
        The share of the training images that is held out for validation.
    weights
        What fine-tuning starts from: the same method's own model of ImageNet (``pretrained``, or
        ``synthetic`` of generated images), what others published, ``random`` weights or a file.
    mix_in
        Where the method mixes: in ``pretrain``-ing, in ``finetune``-ing or in ``both``.
    criterion
        The loss: binary cross-entropy, or the asymmetric loss, of which losses are mixed.
    """

    version = 1
    data = VOC_2007
    synthetic = Synthetic(train=80, test=40, protocols=("quick",))
    needs = pretrained_on("imagenet")
    by_protocol = {"quick": {"classes": 8, "side": 48}}
    metrics = MEAN_AVERAGE_PRECISION
    models = SMALL_NETS
    takes_timm = True
    protocols = MULTI_LABEL_FINE_TUNING
    references = table_row(
        "arXiv:2106.09011", "Table 4, VOC", "resnet50",
        {
            "none": 92.13, "mixup": 91.80, "cutmix": 92.41, "random_patchmix": 92.42,
            "guided_patchmix": 92.39,
        },
        metric="map",
    )  # fmt: skip

    def __init__(
        self,
        classes: Count = 20,
        side: Count = 448,
        holdout: Fraction = 0.1,
        weights: Weights = "pretrained",
        mix_in: Literal["pretrain", "finetune", "both"] = "pretrain",
        criterion: Literal["bce", "asl"] = "bce",
    ) -> None:
        if classes > len(CLASSES):
            raise BadParameter(f"voc has {len(CLASSES)} classes (got classes={classes}).")
        super().__init__(classes, side, holdout, weights, mix_in, criterion)

    def load(self, part: Part, folder: Path, seed: int) -> Split:
        """List the official test images, or those of trainval on one side of the split."""
        found = listed(folder / ROOT, "test" if part == "test" else "trainval")
        targets = torch.stack([labels_of(read_annotation(path)) for _, path in found])
        targets = targets[:, : self.labels]
        there = (targets != 0).any(1) | (self.labels == len(CLASSES))
        if part != "test":
            there = there & self.side_of_holdout(part, len(found), seed)
        kept = torch.nonzero(there).flatten().tolist()
        return self.split([found[i][0] for i in kept], targets[there])

    def class_names(self, folder: Path) -> list[str]:  # noqa: ARG002  # they are always the same
        """Return the names of the classes that take part."""
        return list(CLASSES[: self.labels])

    def synthesize(self, folder: Path, amount: Synthetic) -> None:
        """Write generated scenes of some things each with annotations in the same folders.

        The amounts are images for every class, of which each shows one to three.
        """
        kinds = looks(self.labels)
        for number, (part, count) in enumerate((("trainval", amount.train), ("test", amount.test))):
            rng = generator(amount.seed, "synthetic", number)
            names = [f"{number}{i:05}" for i in range(count * self.labels)]
            write_scenes(folder / ROOT, part, names, kinds, rng)


def labels_of(image: Annotated) -> Tensor:
    """Return which classes an image has, (20,) int8; -1 for those only there as difficult."""
    target = torch.zeros(len(CLASSES), dtype=torch.int8)
    for thing in image.things:
        if not thing.difficult:
            target[thing.name] = 1
        elif target[thing.name] == 0:
            target[thing.name] = -1
    return target
