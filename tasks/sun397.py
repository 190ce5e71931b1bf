"""SUN397: 108,754 photographs of scenes in 397 classes, with a model pre-trained on ImageNet.

Data     Xiao et al., SUN Database, CVPR 2010: SUN397/ with images and ClassName.txt, Partitions/
         with Training_01.txt and Testing_01.txt; by convention, the first of ten partitions is used
Licence  research use
Split    test: the 50 test images per class of partition 01; validation: 10 % of the 50 training
         images per class of partition 01
Recipe   paper: fine-tune all layers at 224 pixels for 50 epochs, with ten times the learning rate
         for the classifier; the PatchMix paper (arXiv:2106.09011, §5.3) states no recipe
Expect   protocol paper, resnet50: 60.4 % top-1 after pre-training without mixing (the paper)
"""

from collections.abc import Sequence
from pathlib import Path

from mixbench.declare import Archive, Data, table_row
from mixbench.vision.tasks.transfer import ListedTransfer


class Sun397(ListedTransfer):
    """Classify scenes with a model pre-trained on ImageNet."""

    version = 1
    all_classes = 397
    data = Data(
        name="sun397",
        version="CVPR 2010, partition 01",
        licence="research use",
        url="https://vision.princeton.edu/projects/2010/SUN/",
        files={
            "SUN397/ClassName.txt": "",
            "Partitions/Training_01.txt": "",
            "Partitions/Testing_01.txt": "",
        },
        file_counts={"SUN397": 108754},
        parts={
            "Partitions/Training_01.txt": "train list",
            "Partitions/Testing_01.txt": "test list",
        },
        archives=(
            Archive("SUN397.tar.gz", "8ca2778205c41d23104230ba66911c7a"),
            Archive("Partitions.zip", "29a205c0a0129d21f36cbecfefe81881"),
        ),
        manual_steps="The official host has returned 404 since 2025. Download SUN397.tar.gz "
        "(37 GB) and Partitions.zip from a mirror.",
        num_train=19850,
        num_test=19850,
    )
    references = table_row(
        "arXiv:2106.09011", "Table 4, SUN397", "resnet50",
        {
            "none": 60.41, "mixup": 60.16, "cutmix": 58.48, "random_patchmix": 61.08,
            "guided_patchmix": 60.99,
        },
    )  # fmt: skip
    class_list = "SUN397/ClassName.txt"
    train_list = "Partitions/Training_01.txt"
    test_list = "Partitions/Testing_01.txt"
    image_folder = "SUN397"
    suffix = ""

    def unpack(self, archive: Path, folder: Path) -> None:
        """Unpack the images into the data folder and the partitions into Partitions/."""
        super().unpack(archive, folder / "Partitions" if "Part" in archive.name else folder)

    def class_lines(self, words: Sequence[str]) -> list[str]:
        """Return the sorted classes in the form of the official list, such as /a/abbey."""
        return sorted(f"/{word[0]}/{word}" for word in words)
