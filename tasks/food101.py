"""Food-101: 101,000 photographs of dishes, in 101 classes, classified by a model of ImageNet.

Data     Bossard et al., Food-101: Mining Discriminative Components with Random Forests, ECCV 2014:
         food-101/ with images/CLASS/ID.jpg and meta/; training labels are noisy on purpose
Licence  of the photographs' authors; for research, under fair use
Split    test: the official 25,250 images; validation: 10 % of every class of the official 75,750
Recipe   paper: full fine-tuning at 224 pixels for 50 epochs, the classifier at ten times the rate;
         the PatchMix paper (arXiv:2106.09011, §5.3) states none
Expect   protocol paper, resnet50: 87.7 % top-1 after plain pre-training (the paper)
"""

from pathlib import Path
from typing import Literal

import torch

from mixbench.classification import held_out
from mixbench.contract import Part, Split
from mixbench.declare import (
    FINE_TUNING,
    SMALL_NETS,
    TOP1_AND_TOP5,
    Archive,
    Count,
    Data,
    Fraction,
    Synthetic,
    Weights,
    pretrained_on,
    table_row,
)
from mixbench.images.lists import read_lines, write_lines
from mixbench.images.scenes import looks, one_thing, write_images
from mixbench.streams import generator
from mixbench.transfer import Transfer

ROOT = "food-101"
SIZE = (72, 96)  # of generated images: height and width


class Food101(Transfer):
    """Classify dishes, starting from a model that was trained on ImageNet.

    Parameters
    ----------
    classes
        The first so many of the classes.
    side : pixels
        Of the squares that the model sees.
    holdout
        The share of the training images that is held out for validation.
    weights
        What fine-tuning starts from: the same method's own model of ImageNet (``pretrained``, or
        ``synthetic`` of generated images), what others published, ``random`` weights or a file.
    mix_in
        Where the method mixes: in ``pretrain``-ing, in ``finetune``-ing or in ``both``.
    """

    version = 1
    data = Data(
        name="food101",
        version="ECCV 2014",
        licence="of the photographs' authors; research, under fair use",
        url="https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
        files={
            "food-101/meta/classes.txt": "",
            "food-101/meta/train.txt": "",
            "food-101/meta/test.txt": "",
        },
        trees={"food-101/images": 101000},
        archives=(
            Archive(
                "food-101.tar.gz",
                "85eeb15f3717b99a5da872d97d918f87",
                "http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",
            ),
        ),
    )
    synthetic = Synthetic(train=60, test=30, protocols=("quick",))
    needs = pretrained_on("imagenet")
    by_protocol = {"quick": {"classes": 10, "side": 48}}
    metrics = TOP1_AND_TOP5
    models = SMALL_NETS
    takes_timm = True
    protocols = FINE_TUNING
    references = table_row(
        "arXiv:2106.09011", "Table 4, Food-101", "resnet50",
        {
            "none": 87.70, "mixup": 87.82, "cutmix": 88.02, "random_patchmix": 87.95,
            "guided_patchmix": 87.50,
        },
    )  # fmt: skip

    def __init__(
        self,
        classes: Count = 101,
        side: Count = 224,
        holdout: Fraction = 0.1,
        weights: Weights = "pretrained",
        mix_in: Literal["pretrain", "finetune", "both"] = "pretrain",
    ) -> None:
        super().__init__(classes, side, holdout, weights, mix_in)

    def load(self, part: Part, folder: Path, seed: int) -> Split:
        """List the official test images, or training images on one side of the split."""
        meta, images = folder / ROOT / "meta", folder / ROOT / "images"
        path = meta / ("test.txt" if part == "test" else "train.txt")
        listing = self.listed(
            path, meta / "classes.txt", "CLASS/IMAGE", lambda line: images / f"{line}.jpg"
        )
        if part != "test":
            listing = listing.only(held_out(part, listing.classes, self.holdout, seed))
        return self.split(listing)

    def class_names(self, folder: Path) -> list[str]:
        """Return the names of the classes, in the order of their list."""
        path = folder / ROOT / "meta/classes.txt"
        return self.names_of(read_lines(path), path)

    def synthesize(self, folder: Path, amount: Synthetic) -> None:
        """Write generated scenes of one thing each in the same folders, and their lists."""
        kinds, root = looks(self.num_classes), folder / ROOT
        names = [kind.name.replace(" ", "_") for kind in kinds]
        (root / "meta").mkdir(parents=True)
        for name in names:
            (root / "images" / name).mkdir(parents=True)
        write_lines(root / "meta/classes.txt", names)
        for number, (part, count) in enumerate((("train", amount.train), ("test", amount.test))):
            rng = generator(amount.seed, "synthetic", number)
            classes = torch.arange(self.num_classes).repeat_interleave(count)
            ids = [f"{names[c]}/{number + 1}{i:06}" for i, c in enumerate(classes.tolist())]
            paths = [root / "images" / f"{name}.jpg" for name in ids]
            write_images(paths, one_thing(classes, rng, (0.25, 0.42)), kinds, SIZE, rng)
            write_lines(root / "meta" / f"{part}.txt", ids)
