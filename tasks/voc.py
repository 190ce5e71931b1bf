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

import torch
from torch import Tensor

from mixbench.contract import Part, Split
from mixbench.declare import VOC_2007, Synthetic, table_row
from mixbench.streams import generator
from mixbench.vision.detection.annotations import CLASSES, Annotated, listed, read_annotation
from mixbench.vision.detection.synthetic import write_scenes
from mixbench.vision.images.scenes import looks
from mixbench.vision.tasks.multilabel import MultiLabel

ROOT = "VOCdevkit/VOC2007"


class Voc(MultiLabel):
    """Say which kinds of objects a photograph shows, starting from a model of ImageNet."""

    version = 1
    all_labels = 20
    data = VOC_2007
    references = table_row(
        "arXiv:2106.09011", "Table 4, VOC", "resnet50",
        {
            "none": 92.13, "mixup": 91.80, "cutmix": 92.41, "random_patchmix": 92.42,
            "guided_patchmix": 92.39,
        },
        metric="map",
    )  # fmt: skip

    def load(self, part: Part, folder: Path, seed: int) -> Split:
        """List the official test images, or those of trainval on one side of the split."""
        found = listed(folder / ROOT, "test" if part == "test" else "trainval")
        targets = torch.stack([labels_of(read_annotation(path)) for _, path in found])
        return self.part_of([image for image, _ in found], targets, part, seed)

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
            target[thing.class_id] = 1
        elif target[thing.class_id] == 0:
            target[thing.class_id] = -1
    return target
