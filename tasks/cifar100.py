"""CIFAR-100: 60,000 photographs of 32x32 pixels in 100 classes.

Data     Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009: the Python
         version, cifar-100-python/ with a training batch and a test batch; the fine labels are used
Licence  none stated by the authors
Split    test: the official 10,000 test images; validation: 10 % of every class of the official
         50,000 training images
Recipe   paper: the recipe of Cascante-Bonilla et al., BMVC 2021, arXiv:2106.09011, §4.1
         deit, convnext: the recipes of Westlake-AI/openmixup@37e1372, configs/classification/
         cifar100/mixups/vits, at the size of these images: ViT-S with 8x8 patches, ConvNeXt-T with
         a stem of stride 1. rsb_a3: procedure A3 of arXiv:2110.00476 on ResNet-50, with
         batches of 256 and so a learning rate that is smaller by the square root of 8
Expect   protocol paper, resnet32: 68.5 % top-1 without mixing (the paper)
"""

from mixbench.contract import Normalization
from mixbench.declare import (
    QUICK_PROTOCOLS,
    SMALL_FIELD_PROTOCOLS,
    SMALL_NETS,
    SMALL_PATCH_NETS,
    TOP1_AND_TOP5,
    Archive,
    Count,
    CountOrZero,
    Data,
    Fraction,
    Recipe,
    Synthetic,
    Weights,
    table_row,
)

from .cifar10 import Cifar10, PythonVersion


class Cifar100(Cifar10):
    """Classify small photographs into 100 classes."""

    version = 1
    data = Data(
        name="cifar100",
        version="python version, 2009",
        licence="none stated by the authors",
        url="https://www.cs.toronto.edu/~kriz/cifar.html",
        files={
            "cifar-100-python/meta": "7973b15100ade9c7d40fb424638fde48",
            "cifar-100-python/test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
            "cifar-100-python/train": "16019d7e3df5f24257cddd939b257f8d",
        },
        parts={"cifar-100-python/train": "train", "cifar-100-python/test": "test"},
        archives=(
            Archive(
                "cifar-100-python.tar.gz",
                "eb9058c3a382ffc7106e4002c42a8d85",
                "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
                169001437,
            ),
        ),
        num_train=50000,
        num_test=10000,
    )
    synthetic = Synthetic(train=150, test=30, protocols=QUICK_PROTOCOLS)
    by_protocol = {
        "quick": {"classes": 30},
        "quick_rsb_a3": {"classes": 30},
        "quick_deit": {"classes": 30},
        "quick_convnext": {"classes": 30},
    }
    models = (*SMALL_NETS, *SMALL_PATCH_NETS)
    protocols = {
        "paper": Recipe(model="resnet32", epochs=400),
        "quick": Recipe(model="resnet8", epochs=10),
        **SMALL_FIELD_PROTOCOLS,
    }
    metrics = TOP1_AND_TOP5
    references = (
        *table_row(
            "arXiv:2106.09011", "Table 1, MobileNetV2", "mobilenet_v2",
            {
                "none": (66.55, 0.21), "mixup": (68.45, 0.38), "manifold_mixup": (68.97, 0.41),
                "cutmix_16": (69.14, 0.39), "random_patchmix": (69.18, 0.38),
                "guided_patchmix": (70.05, 0.37),
            },
            num_seeds=3,
        ),
        *table_row(
            "arXiv:2106.09011", "Table 1, ResNet32", "resnet32",
            {
                "none": (68.52, 0.38), "mixup": (69.12, 0.31), "manifold_mixup": (70.82, 0.39),
                "cutmix_16": (71.32, 0.30), "random_patchmix": (71.09, 0.49),
                "guided_patchmix": (72.83, 0.26),
            },
            num_seeds=3,
        ),
        *table_row(
            "arXiv:2106.09011", "Table 1, ResNet50", "resnet50",
            {
                "none": (71.37, 0.27), "mixup": (71.99, 0.31), "manifold_mixup": (72.65, 0.40),
                "cutmix_16": (72.91, 0.36), "random_patchmix": (73.02, 0.48),
                "guided_patchmix": (73.63, 0.31),
            },
            num_seeds=3,
        ),
        *table_row(
            "arXiv:2106.09011", "Table 1, ResNet56*", "preact_resnet56",
            {
                "none": (71.60, 0.37), "mixup": (72.43, 0.29), "manifold_mixup": (73.21, 0.47),
                "cutmix_16": (74.02, 0.35), "random_patchmix": (74.56, 0.32),
                "guided_patchmix": (75.26, 0.38),
            },
            num_seeds=3,
        ),
        *table_row(
            "arXiv:2106.09011", "Table 1, ResNet164*", "preact_resnet164",
            {
                "none": (72.43, 0.22), "mixup": (74.14, 0.34), "manifold_mixup": (75.07, 0.49),
                "cutmix_16": (76.97, 0.31), "random_patchmix": (76.39, 0.44),
                "guided_patchmix": (78.16, 0.47),
            },
            num_seeds=3,
        ),
        *table_row(
            "Westlake-AI/openmixup@37e1372",
            "docs/en/mixup_benchmarks/Mixup_cifar.md:192-205, ConvNeXt-T, 200 epochs",
            "small_convnext_tiny",
            {
                "none": 78.70, "mixup": 81.13, "cutmix": 82.46, "one_of": 83.09,
                "manifold_mixup": 82.06, "smoothmix": 78.87, "saliencymix": 82.82,
                "attentivemix": 82.59, "fmix": 81.79, "puzzlemix": 82.29, "resizemix": 82.53,
                "automix": 83.30, "samix": 83.56,
            },
            protocol="convnext",
            remark="the best of the last ten epochs on the test images, trained on all training "
            "images, with a stem of 3x3 pixels and an alpha searched for each method",
        ),
    )  # fmt: skip

    _layout = PythonVersion(
        folder="cifar-100-python",
        meta="meta",
        names_key="fine_label_names",
        labels_key="fine_labels",
        train=("train",),
        test=("test",),
        normalization=Normalization((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    )

    def __init__(
        self,
        classes: Count = 100,
        holdout: Fraction = 0.1,
        per_class: CountOrZero = 0,
        weights: Weights = "random",
    ) -> None:
        super().__init__(classes, holdout, per_class, weights)
