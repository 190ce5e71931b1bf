"""Corrupted CIFAR-10: the test images of CIFAR-10 under eight corruptions, computed here.

Data     the data of cifar10; the model is trained on cifar10 with the same method and seed
Licence  none stated by the authors
Split    test: the first `images` official test images under 8 corruptions at 5 severities
Source   kinds and strengths of CIFAR-10-C, hendrycks/robustness@8190fe3, make_cifar_c.py
Differs  from cifar10_c: eight of fifteen kinds, and other random draws; for where its archive of
         2.9 GB is not at hand
"""

from mixbench.declare import CORRUPTION_ERROR
from mixbench.vision.robustness.computed import ComputedCorruptions


class Cifar10Corrupted(ComputedCorruptions):
    """Evaluate CIFAR-10 classifiers on test images that are corrupted when they are read."""

    version = 1
    evaluates = "cifar10"
    metrics = CORRUPTION_ERROR
    by_protocol = {"few": {"images": 1000}}  # times 40
