"""CIFAR-10 under attack: its test images, changed by FGSM and PGD so that a model errs.

Data     that of cifar10; the model is trained by cifar10 with the same method and seed
Licence  none stated by the authors
Split    test: the official 10,000, all attacked
Source   attacks by torchattacks; the eps of arXiv:2106.09011, Table 5, and k/255
"""

from mixbench.vision.robustness.adversarial import Attacked


class Cifar10Fgsm(Attacked):
    """Attack classifiers of CIFAR-10 and count the images on which they withstand."""

    version = 1
    evaluates = "cifar10"
