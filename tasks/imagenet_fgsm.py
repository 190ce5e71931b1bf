"""Adversarial ImageNet: the validation images of ImageNet under FGSM and PGD attacks.

Data     the data of imagenet; the model is trained on imagenet with the same method and seed
Licence  requires registration at image-net.org; non-commercial research and teaching only
Split    test: the official 50,000 validation images, all attacked
Source   attacks from torchattacks; eps values from arXiv:2106.09011, §5.4 and Table 5, and
         multiples of 1/255
Expect   protocol paper, resnet50: 16.0 % under FGSM with eps 0.1 without mixing, if the paper's eps
         refers to pixel values, which it does not state
"""

from typing import Literal

from mixbench.declare import (
    EPS_4_255,
    EPSILONS,
    Count,
    Epsilons,
    Weights,
    table_row,
    under_attack,
)
from mixbench.vision.robustness.adversarial import Attacked


class ImagenetFgsm(Attacked):
    """Measure the accuracy of ImageNet classifiers under adversarial attacks."""

    version = 2
    evaluates = "imagenet"
    metrics = under_attack(pgd_eps=(EPS_4_255,))
    references = (
        *table_row(
            "arXiv:2106.09011", "Table 5, eps 0.1", "resnet50",
            {
                "none": 15.96, "mixup": 28.42, "cutmix": 29.26, "random_patchmix": 30.62,
                "guided_patchmix": 31.88,
            },
            metric="fgsm_0_1", remark="the paper does not state the space of its eps values",
        ),
        *table_row(
            "arXiv:2106.09011", "Table 5, eps 0.2", "resnet50",
            {
                "none": 9.12, "mixup": 20.45, "cutmix": 19.92, "random_patchmix": 21.07,
                "guided_patchmix": 21.68,
            },
            metric="fgsm_0_2", remark="the paper does not state the space of its eps values",
        ),
        *table_row(
            "arXiv:2106.09011", "Table 5, eps 0.3", "resnet50",
            {
                "none": 5.87, "mixup": 15.31, "cutmix": 13.65, "random_patchmix": 14.29,
                "guided_patchmix": 14.57,
            },
            metric="fgsm_0_3", remark="the paper does not state the space of its eps values",
        ),
    )  # fmt: skip

    def __init__(
        self,
        eps: Epsilons = EPSILONS,
        eps_space: Literal["pixel", "normalized"] = "pixel",
        pgd_eps: Epsilons = (EPS_4_255,),
        pgd_steps: Count = 20,
        weights: Weights = "pretrained",
    ) -> None:
        super().__init__(eps, eps_space, pgd_eps, pgd_steps, weights)
