"""SUN397: 108,754 photographs of scenes, in 397 classes, classified by a model of ImageNet.

Data     Xiao et al., SUN Database, CVPR 2010: SUN397/ with images and ClassName.txt, Partitions/
         with Training_01.txt and Testing_01.txt; the first of ten partitions, as is the convention
Licence  research
Split    test: 50 images of every class, partition 01; validation: 10 % of the 50 that train
Recipe   paper: full fine-tuning at 224 pixels for 50 epochs, the classifier at ten times the rate;
         the PatchMix paper (arXiv:2106.09011, §5.3) states none
Expect   protocol paper, resnet50: 60.4 % top-1 after plain pre-training (the paper)
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

PARTITIONS = {"train": "Partitions/Training_01.txt", "test": "Partitions/Testing_01.txt"}
SIZE = (72, 96)  # of generated images: height and width


class Sun397(Transfer):
    """Classify scenes, starting from a model that was trained on ImageNet.

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
        name="sun397",
        version="CVPR 2010, partition 01",
        licence="research",
        url="https://vision.princeton.edu/projects/2010/SUN/",
        files={
            "SUN397/ClassName.txt": "",
            "Partitions/Training_01.txt": "",
            "Partitions/Testing_01.txt": "",
        },
        trees={"SUN397": 108754},
        counted=".jpg",
        archives=(
            Archive("SUN397.tar.gz", "8ca2778205c41d23104230ba66911c7a"),
            Archive("Partitions.zip", "29a205c0a0129d21f36cbecfefe81881"),
        ),
        by_hand="The official host answers 404 since 2025: get SUN397.tar.gz (37 GB) and "
        "Partitions.zip from a mirror of yours.",
    )
    synthetic = Synthetic(train=60, test=30, protocols=("quick",))
    needs = pretrained_on("imagenet")
    by_protocol = {"quick": {"classes": 10, "side": 48}}
    metrics = TOP1_AND_TOP5
    models = SMALL_NETS
    takes_timm = True
    protocols = FINE_TUNING
    references = table_row(
        "arXiv:2106.09011", "Table 4, SUN397", "resnet50",
        {
            "none": 60.41, "mixup": 60.16, "cutmix": 58.48, "random_patchmix": 61.08,
            "guided_patchmix": 60.99,
        },
    )  # fmt: skip

    def __init__(
        self,
        classes: Count = 397,
        side: Count = 224,
        holdout: Fraction = 0.1,
        weights: Weights = "pretrained",
        mix_in: Literal["pretrain", "finetune", "both"] = "pretrain",
    ) -> None:
        super().__init__(classes, side, holdout, weights, mix_in)

    def load(self, part: Part, folder: Path, seed: int) -> Split:
        """List the images of the partition's test part, or one side of its training part."""
        images = folder / "SUN397"
        path = folder / PARTITIONS["test" if part == "test" else "train"]
        listing = self.listed(
            path, images / "ClassName.txt", "/CLASS/IMAGE", lambda line: images / line[1:]
        )
        if part != "test":
            listing = listing.only(held_out(part, listing.classes, self.holdout, seed))
        return self.split(listing)

    def class_names(self, folder: Path) -> list[str]:
        """Return the names of the classes that take part, as /a/abbey."""
        path = folder / "SUN397/ClassName.txt"
        return self.names_of(read_lines(path), path)

    def unpack(self, archive: Path, folder: Path) -> None:
        """Unpack the images beside, and the partitions into a folder of theirs."""
        super().unpack(archive, folder / "Partitions" if "Part" in archive.name else folder)

    def synthesize(self, folder: Path, amount: Synthetic) -> None:
        """Write generated scenes of one thing each in the same folders, and their lists."""
        kinds = looks(self.num_classes)
        words = [kind.name.replace(" ", "_") for kind in kinds]
        names = sorted(f"/{word[0]}/{word}" for word in words)
        order = [words.index(name.rpartition("/")[2]) for name in names]
        (folder / "Partitions").mkdir()
        for name in names:
            (folder / "SUN397" / name[1:]).mkdir(parents=True)
        write_lines(folder / "SUN397/ClassName.txt", names)
        for number, (part, count) in enumerate((("train", amount.train), ("test", amount.test))):
            rng = generator(amount.seed, "synthetic", number)
            classes = torch.arange(self.num_classes).repeat_interleave(count)
            ids = [f"{names[c]}/sun_{number}{i:06}.jpg" for i, c in enumerate(classes.tolist())]
            layout = one_thing(torch.tensor(order)[classes], rng, (0.25, 0.42))
            write_images([folder / "SUN397" / name[1:] for name in ids], layout, kinds, SIZE, rng)
            write_lines(folder / PARTITIONS[part], ids)
