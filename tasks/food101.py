"""Food-101: 101,000 photographs of dishes in 101 classes, with a model pre-trained on ImageNet.

Data     Bossard et al., Food-101: Mining Discriminative Components with Random Forests, ECCV 2014:
         food-101/ with images/CLASS/ID.jpg and meta/; the training labels are intentionally noisy
Licence  the photographs belong to their authors; research use under fair use
Split    test: the official 25,250 test images; validation: 10 % of every class of the official
         75,750 training images
Recipe   paper: fine-tune all layers at 224 pixels for 50 epochs, with ten times the learning rate
         for the classifier; the PatchMix paper (arXiv:2106.09011, §5.3) states no recipe
Expect   protocol paper, resnet50: 87.7 % top-1 after pre-training without mixing (the paper)
"""

from mixbench.declare import Archive, Data, table_row
from mixbench.vision.tasks.transfer import ListedTransfer


class Food101(ListedTransfer):
    """Classify dishes with a model pre-trained on ImageNet."""

    version = 1
    all_classes = 101
    data = Data(
        name="food101",
        version="ECCV 2014",
        licence="the photographs belong to their authors; research use under fair use",
        url="https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
        files={
            "food-101/meta/classes.txt": "afdbc005721540e66f34a5859d02d189",
            "food-101/meta/train.txt": "7744a961f9cc052addb2d8d34a368062",
            "food-101/meta/test.txt": "d530ff33f4c61fa763874fc2acd77180",
        },
        file_counts={"food-101/images": 101000},
        parts={"food-101/meta/train.txt": "train list", "food-101/meta/test.txt": "test list"},
        archives=(
            Archive(
                "food-101.tar.gz",
                "85eeb15f3717b99a5da872d97d918f87",
                "http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",
            ),
        ),
        num_train=75750,
        num_test=25250,
    )
    references = table_row(
        "arXiv:2106.09011", "Table 4, Food-101", "resnet50",
        {
            "none": 87.70, "mixup": 87.82, "cutmix": 88.02, "random_patchmix": 87.95,
            "guided_patchmix": 87.50,
        },
    )  # fmt: skip
    class_list = "food-101/meta/classes.txt"
    train_list = "food-101/meta/train.txt"
    test_list = "food-101/meta/test.txt"
    image_folder = "food-101/images"
    suffix = ".jpg"
