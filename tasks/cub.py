"""CUB-200-2011: 11,788 photographs of birds, in 200 classes, classified by a model of ImageNet.

Data     Wah et al., The Caltech-UCSD Birds-200-2011 Dataset, 2011: CUB_200_2011/ as published
Licence  non-commercial research and education; the photographs belong to their authors
Split    test: the official 5,794 images; validation: 10 % of every class of the official 5,994
Recipe   paper: full fine-tuning at 224 pixels for 50 epochs, the classifier at ten times the rate;
         the PatchMix paper (arXiv:2106.09011, §5.3) states none
Expect   protocol paper, resnet50: 76.3 % top-1 after plain pre-training (the paper)
"""

from pathlib import Path
from typing import Literal

from mixbench.classification import held_out
from mixbench.contract import Part, Split
from mixbench.declare import (
    CUB,
    FINE_TUNING,
    SMALL_NETS,
    TOP1_AND_TOP5,
    Count,
    Fraction,
    Synthetic,
    Weights,
    pretrained_on,
    table_row,
)
from mixbench.images.folders import Listing
from mixbench.transfer import Transfer

from .cub_wsol.files import ROOT, chosen_birds, class_lines
from .cub_wsol.synthetic import write_birds


class Cub(Transfer):
    """Classify birds, starting from a model that was trained on ImageNet.

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
    data = CUB
    synthetic = Synthetic(train=120, test=30, protocols=("quick",))
    needs = pretrained_on("imagenet")
    by_protocol = {"quick": {"classes": 6, "side": 48}}
    metrics = TOP1_AND_TOP5
    models = SMALL_NETS
    takes_timm = True
    protocols = FINE_TUNING
    references = table_row(
        "arXiv:2106.09011", "Table 4, CUB-200", "resnet50",
        {
            "none": 76.30, "mixup": 78.91, "cutmix": 77.77, "random_patchmix": 79.17,
            "guided_patchmix": 79.50,
        },
    )  # fmt: skip

    def __init__(
        self,
        classes: Count = 200,
        side: Count = 224,
        holdout: Fraction = 0.1,
        weights: Weights = "pretrained",
        mix_in: Literal["pretrain", "finetune", "both"] = "pretrain",
    ) -> None:
        super().__init__(classes, side, holdout, weights, mix_in)

    def load(self, part: Part, folder: Path, seed: int) -> Split:
        """List the official test images, or training images on one side of the split."""
        root = folder / ROOT
        birds = chosen_birds(root, self)
        birds = birds.only(birds.train == (part != "test"))
        if part != "test":
            birds = birds.only(held_out(part, birds.classes, self.holdout, seed))
        return self.split(Listing([root / "images" / name for name in birds.names], birds.classes))

    def class_names(self, folder: Path) -> list[str]:
        """Return the names of the classes that take part."""
        return self.names_of(class_lines(folder / ROOT), folder / ROOT / "classes.txt")

    def synthesize(self, folder: Path, amount: Synthetic) -> None:
        """Write generated birds before clutter in the same layout."""
        write_birds(folder / ROOT, self.num_classes, amount)
