"""CUB-200-2011: 11,788 photographs of birds in 200 classes, with a model pre-trained on ImageNet.

Data     Wah et al., The Caltech-UCSD Birds-200-2011 Dataset, 2011: CUB_200_2011/ as published
Licence  non-commercial research and education; the photographs belong to their authors
Split    test: the official 5,794 test images; validation: 10 % of every class of the official 5,994
         training images
Recipe   paper: fine-tune all layers at 224 pixels for 50 epochs, with ten times the learning rate
         for the classifier; the PatchMix paper (arXiv:2106.09011, §5.3) states no recipe
Expect   protocol paper, resnet50: 76.3 % top-1 after pre-training without mixing (the paper)
"""

from pathlib import Path

from mixbench.declare import CUB, Synthetic, table_row
from mixbench.vision.images.folders import Listing
from mixbench.vision.tasks.transfer import Transfer

from .cub_wsol.files import ROOT, chosen_birds, class_lines
from .cub_wsol.synthetic import write_birds


class Cub(Transfer):
    """Classify birds with a model pre-trained on ImageNet."""

    version = 1
    all_classes = 200
    data = CUB
    synthetic = Synthetic(train=120, test=30, protocols=("quick",))
    by_protocol = {"quick": {"classes": 6, "side": 48}}
    references = table_row(
        "arXiv:2106.09011", "Table 4, CUB-200", "resnet50",
        {
            "none": 76.30, "mixup": 78.91, "cutmix": 77.77, "random_patchmix": 79.17,
            "guided_patchmix": 79.50,
        },
    )  # fmt: skip

    def listing(self, folder: Path, *, test: bool) -> Listing:
        """Return the official test or training images of the classes that are used."""
        birds = chosen_birds(folder / ROOT, self)
        birds = birds.only(birds.train != test)
        return Listing([folder / ROOT / "images" / name for name in birds.names], birds.classes)

    def class_names(self, folder: Path) -> list[str]:
        """Return the names of the classes that are used."""
        return self.names_of(class_lines(folder / ROOT), folder / ROOT / "classes.txt")

    def synthesize(self, folder: Path, amount: Synthetic) -> None:
        """Write synthetic images of birds on cluttered backgrounds in the same format."""
        write_birds(folder / ROOT, self.num_classes, amount)
