"""The fifteen corruptions of ImageNet-C and CIFAR-C, and the errors of models under them.

Hendrycks & Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations, arXiv:1903.12261, eq. in §4: a corruption's error is the mean over its five
severities, divided by AlexNet's error where that is known; mCE is the mean over corruptions. On
CIFAR-C, errors are not divided, as is common practice (google-research/augmix@9b9824c, cifar.py).
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from mixbench.declare import CORRUPTIONS

# AlexNet's errors on ImageNet-C: means over severities of those published in
# hendrycks/robustness, as in google-research/augmix@9b9824c, imagenet.py, ALEXNET_ERR.
ALEXNET: Mapping[str, float] = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}
assert tuple(ALEXNET) == CORRUPTIONS
SEVERITIES = 5


def conditions(number: int, kinds: int = len(CORRUPTIONS)) -> Tensor:
    """Return the corruption and the severity of every item, (kinds * 5 * number, 2) int64.

    Parameters
    ----------
    number
        Number of images under each corruption at each severity. Items are sorted by corruption,
        then by severity. Both are counted from 0.
    kinds
        Number of corruptions.
    """
    corruption, severity = torch.meshgrid(
        torch.arange(kinds), torch.arange(SEVERITIES), indexing="ij"
    )
    return torch.stack([corruption, severity], -1).flatten(0, 1).repeat_interleave(number, 0)


def error_rates(wrong: Tensor, under: Tensor, kinds: int = len(CORRUPTIONS)) -> Tensor:
    """Return the fraction of misclassified items for each corruption and severity, (kinds, 5).

    Parameters
    ----------
    wrong : (N,) bool
        Whether each item is misclassified.
    under : (N, 2) int64
        Corruption and severity of every item; each combination must occur.
    kinds
        Number of corruptions.
    """
    place = under[:, 0] * SEVERITIES + under[:, 1]
    counts = place.bincount(minlength=kinds * SEVERITIES)
    sums = place.bincount(wrong.double(), minlength=kinds * SEVERITIES)
    return (sums / counts).view(kinds, SEVERITIES)


def corruption_errors(rates: Tensor, *, of_alexnet: bool) -> Tensor:
    """Return the error of each corruption in percent, (kinds,).

    Parameters
    ----------
    rates : (kinds, 5)
        Fractions of misclassified items by corruption and severity.
    of_alexnet
        Whether errors are given in percent of AlexNet's errors.
    """
    errors = 100 * rates.mean(1)
    return errors / errors.new_tensor(list(ALEXNET.values())) if of_alexnet else errors
