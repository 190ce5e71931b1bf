"""Adversarial CIFAR-10: the test images of CIFAR-10 under FGSM and PGD attacks.

Data     the data of cifar10; the model is trained on cifar10 with the same method and seed
Licence  none stated by the authors
Split    test: the official 10,000 test images, all attacked
Source   attacks from torchattacks; eps values from arXiv:2106.09011, Table 5, and multiples of
         1/255
"""

from mixbench.declare import EPS_2_255, EPSILONS_ASCENDING
from mixbench.vision.robustness.adversarial import Attacked


class Cifar10Fgsm(Attacked):
    """Measure the accuracy of CIFAR-10 classifiers under adversarial attacks."""

    version = 2
    evaluates = "cifar10"
    # Small changes, because a model of few images has no accuracy left at those of large models.
    by_protocol = {
        "quick": {"eps": EPSILONS_ASCENDING},
        "few": {"eps": EPSILONS_ASCENDING, "pgd_eps": (EPS_2_255,), "pgd_steps": 10},
    }
