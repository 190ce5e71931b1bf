"""Pascal VOC 2007: multi-label classification of 9,963 photographs with 20 classes of objects.

Data     Everingham et al., The Pascal Visual Object Classes Challenge 2007: VOCdevkit/VOC2007/ with
         Annotations/, ImageSets/Main/ and JPEGImages/, from both archives
Licence  the photographs belong to their authors (Flickr)
Split    test: the official 4,952 test images; validation: 10 % of the official 5,011 trainval
         images
Recipe   paper: fine-tune a model that was trained on ImageNet, at 448 pixels for 30 epochs with the
         binary cross-entropy and ten times the learning rate for the classifier; the PatchMix paper
         (arXiv:2106.09011, §5.3) states no recipe
Differs  nothing known; a class whose objects in an image are all marked as difficult is positive in
         training and ignored in the scores, as in megvii-research/ML-GCN@5517d6f, voc.py and
         util.py:229-248
Expect   protocol paper, resnet50: 92.1 % mAP after pre-training without mixing (the paper)
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
    """Predict the object classes in a photograph with a model pre-trained on ImageNet."""

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
        """List the test images, or the training or validation images of trainval."""
        found = listed(folder / ROOT, "test" if part == "test" else "trainval")
        targets = torch.stack([labels_of(read_annotation(path)) for _, path in found])
        return self.part_of([image for image, _ in found], targets, part, seed)

    def class_names(self, folder: Path) -> list[str]:  # noqa: ARG002  # VOC's classes are fixed
        """Return the names of the classes that are used."""
        return list(CLASSES[: self.labels])

    def synthesize(self, folder: Path, amount: Synthetic) -> None:
        """Write synthetic images with annotations in the same folders.

        Each image shows one to three objects. The amounts are numbers of images per class.
        """
        kinds = looks(self.labels)
        for number, (part, count) in enumerate((("trainval", amount.train), ("test", amount.test))):
            rng = generator(amount.seed, "synthetic", number)
            names = [f"{number}{i:05}" for i in range(count * self.labels)]
            write_scenes(folder / ROOT, part, names, kinds, rng)


def labels_of(image: Annotated) -> Tensor:
    """Return the labels of an image, (20,) int8; -1 if all objects of a class are difficult."""
    target = torch.zeros(len(CLASSES), dtype=torch.int8)
    for thing in image.things:
        if not thing.difficult:
            target[thing.class_id] = 1
        elif target[thing.class_id] == 0:
            target[thing.class_id] = -1
    return target
