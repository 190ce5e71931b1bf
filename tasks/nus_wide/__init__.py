"""NUS-WIDE: multi-label classification of Flickr photographs with 81 concepts.

Data     Chua et al., NUS-WIDE: A Real-World Web Image Database from National University of
         Singapore, CIVR 2009, in three variants that are never compared: the official lists; the
         lists of Alibaba-MIIL/ASL@8c9e0bd, MODEL_ZOO.md:13, without images that show no concept;
         and the lists of elijahcole/single-positive-multi-label@89152d5, data/README.md:48-77, with
         the images that were online in 2020
Licence  the photographs belong to their authors (Flickr); available to researchers on request
Split    test: the test split of the variant; validation: 10 % of the variant's training images
Recipe   paper: fine-tune a model that was trained on ImageNet, at 448 pixels for 30 epochs with the
         binary cross-entropy and ten times the learning rate for the classifier; the PatchMix paper
         (arXiv:2106.09011, §5.3) states no recipe
Differs  nothing known; images that show no concept are used in training and testing if the variant
         has them
Expect   protocol paper, resnet50: the paper reports 80.2 % mAP after pre-training without mixing,
         far above the mean over 81 concepts that others report (56.9 % in
         megvii-research/ML-GCN@5517d6f)
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from mixbench.contract import Part, Split
from mixbench.datasets.archives import Finding, unpack
from mixbench.datasets.listing import named_images
from mixbench.declare import (
    Archive,
    Count,
    CountOrZero,
    Data,
    Fraction,
    Synthetic,
    Weights,
    table_row,
)
from mixbench.vision.tasks.multilabel import MultiLabel

from .files import LAYOUTS, Listed

PARTS: tuple[Literal["train"], Literal["test"]] = ("train", "test")
# Published numbers of training and test images.
NUMBERS = {"official": (161_789, 107_859), "spml": (150_000, 60_260)}


class NusWide(MultiLabel):
    """Predict the concepts in a photograph with a model pre-trained on ImageNet.

    Parameters
    ----------
    variant
        Lists and labels to use: ``official`` for those of the authors, ``asl`` for those of
        Alibaba-MIIL/ASL, ``spml`` for those of elijahcole/single-positive-multi-label.
    """

    version = 1
    all_labels = 81
    data = Data(
        name="nus_wide",
        version="2009",
        licence="the photographs belong to their authors (Flickr); available to researchers on "
        "request",
        url="https://lms.comp.nus.edu.sg/research/NUS-WIDE.htm",
        files={
            "ConceptsList/Concepts81.txt": "",
            "ImageList/TrainImagelist.txt": "",
            "ImageList/TestImagelist.txt": "",
        },
        file_counts={"Groundtruth/TrainTestLabels": 162, "Flickr": 269648},
        suffixes=(".txt",),
        parts={
            "ImageList/TrainImagelist.txt": "train list",
            "ImageList/TestImagelist.txt": "test list",
        },
        archives=(
            Archive("ConceptsList.zip", ""),
            Archive("ImageList.zip", ""),
            Archive("Groundtruth.zip", ""),
            Archive("Flickr.zip", ""),
        ),
        manual_steps="Download ConceptsList.zip, ImageList.zip and Groundtruth.zip from the page "
        "above, and request the photographs, Flickr.zip, there. No checksums are published.",
        num_train=161789,
        num_test=107859,
    )
    variants = {
        "official": data,
        "asl": Data(
            name="nus_wide_asl",
            version="2020",
            licence="the photographs belong to their authors (Flickr)",
            url="https://github.com/Alibaba-MIIL/ASL/blob/main/MODEL_ZOO.md",
            files={"nus_wid_data.csv": ""},
            file_counts={"images": 0},
            manual_steps="Download the split, nus_wid_data.csv, and the photographs that the page "
            "above links to, and unpack the photographs to images/. Neither checksums nor numbers "
            "of images are published.",
        ),
        "spml": Data(
            name="nus_wide_spml",
            version="2020",
            licence="the photographs belong to their authors (Flickr); available to researchers "
            "on request",
            url="https://zenodo.org/records/10162606",
            files={
                "formatted_train_images.npy": "",
                "formatted_train_labels.npy": "",
                "formatted_val_images.npy": "",
                "formatted_val_labels.npy": "",
            },
            parts={
                "formatted_train_images.npy": "train",
                "formatted_train_labels.npy": "train",
                "formatted_val_images.npy": "test",
                "formatted_val_labels.npy": "test",
            },
            file_counts={"Flickr": 269648},
            archives=(Archive("Flickr.zip", ""),),
            manual_steps="Download NUS-WIDE's four arrays from the page above into the data "
            "folder, and request the photographs, Flickr.zip, at "
            "https://lms.comp.nus.edu.sg/research/NUS-WIDE.htm.",
        ),
    }
    references = table_row(
        "arXiv:2106.09011", "Table 4, NUS", "resnet50",
        {
            "none": 80.19, "mixup": 81.72, "cutmix": 80.53, "random_patchmix": 82.45,
            "guided_patchmix": 82.95,
        },
        metric="map",
        remark="the paper states neither the image lists nor how the mean is computed; other "
        "papers' means over 81 concepts are 20 points lower",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913  # these are the parameters of the task
        self,
        variant: Literal["official", "asl", "spml"] = "official",
        classes: CountOrZero = 0,
        side: Count = 448,
        holdout: Fraction = 0.1,
        weights: Weights = "pretrained",
        mix_in: Literal["pretrain", "finetune", "both"] = "pretrain",
        criterion: Literal["bce", "asl"] = "bce",
    ) -> None:
        super().__init__(classes, side, holdout, weights, mix_in, criterion)
        self.variant = variant
        self._layout = LAYOUTS[variant]

    def load(self, part: Part, folder: Path, seed: int) -> Split:
        """List the test images of the variant, or the training or validation images."""
        listed = self._layout.read(folder, test=part == "test")
        self.names_of(listed.names, folder)
        paths = named_images(
            folder, listed.files, folder / self._layout.list_of(test=part == "test")
        )
        return self.part_of(paths, listed.targets, part, seed)

    def class_names(self, folder: Path) -> list[str]:
        """Return the names of the concepts that are used."""
        return self.names_of(self._layout.read(folder, test=True).names, folder)

    def unpack(self, archive: Path, folder: Path) -> None:
        """Unpack an archive to a folder of the archive's name, with or without a top-level folder.

        If the archive holds a top-level folder of the same name, the two folders are merged.
        """
        inside, aside = folder / archive.stem, folder / f".{archive.stem}"
        unpack(archive, inside)
        if (inside / archive.stem).is_dir():
            (inside / archive.stem).rename(aside)
            shutil.rmtree(inside)
            aside.rename(inside)

    def verify(self, folder: Path) -> Iterator[Finding]:
        """Compare the numbers of listed images with the published numbers."""
        for number, part in zip(NUMBERS.get(self.variant, ()), ("train", "test"), strict=False):
            found = len(self._layout.read(folder, test=part == "test").files)
            yield Finding(part, found == number, f"{found} of {number} images are listed")

    def synthesize(self, folder: Path, amount: Synthetic) -> None:
        """Write synthetic images and labels in the format of the variant."""
        parts: list[Listed] = []
        for part in PARTS:
            scenes = self.scenes(amount, part)
            names = [kind.name.replace(" ", "_") for kind in scenes.kinds]
            place = f"{self._layout.images}/{part}"
            files = [f"{place}/{i:06}.jpg" for i in range(len(scenes.layout))]
            (folder / place).mkdir(parents=True)
            boxes = scenes.write([folder / file for file in files])
            parts.append(Listed(files, scenes.targets(boxes), names))
        self._layout.write(folder, *parts)
