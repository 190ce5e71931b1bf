"""CIFAR-100 under attack: its test images, changed by FGSM and PGD so that a model errs.

Data     that of cifar100; the model is trained by cifar100 with the same method and seed
Licence  none stated by the authors
Split    test: the official 10,000, all attacked
Source   attacks by torchattacks; the eps of arXiv:2106.09011, Table 5, and k/255
"""

from typing import Literal

from mixbench.declare import (
    EPSILONS,
    EPSILONS_ASCENDING,
    Count,
    Epsilons,
    Weights,
    under_attack,
)
from mixbench.robustness.attacked import Attacked


class Cifar100Fgsm(Attacked):
    """Attack classifiers of CIFAR-100 and count who withstands.

    Parameters
    ----------
    eps
        Of FGSM; the first one ranks.
    eps_space
        In which these are numbers: of ``pixel``s, or of ``normalized`` input. Images stay in [0, 1]
        either way. At the paper's three, the other space is reported as well.
    pgd_eps, pgd_steps
        Of PGD, in pixels, by steps of a quarter of it.
    weights
        Which model is attacked: what training with the same method and seed ended with
        (``pretrained``), what timm publishes, or that in a file.
    """

    version = 1
    evaluates = "cifar100"
    by_protocol = {"quick": {"eps": EPSILONS_ASCENDING}}  # of the first, small nets withstand some
    metrics = under_attack()

    def __init__(
        self,
        eps: Epsilons = EPSILONS,
        eps_space: Literal["pixel", "normalized"] = "pixel",
        pgd_eps: Epsilons = (8 / 255,),
        pgd_steps: Count = 20,
        weights: Weights = "pretrained",
    ) -> None:
        super().__init__(eps, eps_space, pgd_eps, pgd_steps, weights)
