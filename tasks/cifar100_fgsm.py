"""CIFAR-100 under attack: its test images, changed by FGSM and PGD so that a model errs.

Data     that of cifar100; the model is trained by cifar100 with the same method and seed
Licence  none stated by the authors
Split    test: the official 10,000, all attacked
Source   attacks by torchattacks; the eps of arXiv:2106.09011, Table 5, and k/255
"""

from mixbench.vision.robustness.adversarial import Attacked


class Cifar100Fgsm(Attacked):
    """Attack classifiers of CIFAR-100 and count the images on which they withstand."""

    version = 1
    evaluates = "cifar100"
