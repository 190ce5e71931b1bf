"""Base class of tasks that attack their test images with FGSM and PGD.

FGSM (Goodfellow et al., arXiv:1412.6572) moves every pixel by eps along the sign of the gradient
of the cross-entropy with the true class. A model can also resist FGSM by gradient masking, without
being robust. PGD (Madry et al., arXiv:1706.06083) repeats the step from a random start and is
harder to mislead. All test images are attacked and counted, including those that the model
misclassifies without an attack.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mixbench.contract import Backbone, Output, Part, Predictions, Score, Split
from mixbench.declare import (
    EPS_8_255,
    EPSILONS,
    EPSILONS_ASCENDING,
    Count,
    Epsilons,
    Weights,
    under_attack,
)
from mixbench.declare.attacks import attacks_of
from mixbench.vision.metrics import mean_of
from mixbench.vision.robustness.attacks import (
    PixelModel,
    attacked,
    check_attackable,
    open_to_attacks,
)
from mixbench.vision.robustness.changed_images import ChangedImages, stored


class Attacked(ChangedImages):
    """Evaluation of the base task's models on its test images under attack.

    Parameters
    ----------
    eps
        Perturbation sizes of FGSM; the accuracy under the first one ranks the methods.
    eps_space
        Space in which `eps` is measured: ``pixel`` values in [0, 1] or ``normalized`` input.
        Images stay in [0, 1] in both. At the paper's three values of `eps`, results in the other
        space are reported as well.
    pgd_eps
        Perturbation sizes of PGD, in pixel values in [0, 1].
    pgd_steps
        Number of PGD steps; each step has a size of a quarter of the perturbation size.
    weights
        Weights of the attacked model: ``pretrained`` (the model trained with the same method and
        seed), ``timm`` or ``timm:TAG`` (published by timm), or the path of a weight file.
    """

    by_protocol = {"quick": {"eps": EPSILONS_ASCENDING}}  # small models keep accuracy at the first
    metrics = under_attack()

    # Attacks need more memory than predictions, because gradients keep the activations.
    evaluation_batch = 50

    def __init__(
        self,
        eps: Epsilons = EPSILONS,
        eps_space: Literal["pixel", "normalized"] = "pixel",
        pgd_eps: Epsilons = (EPS_8_255,),
        pgd_steps: Count = 20,
        weights: Weights = "pretrained",
    ) -> None:
        super().__init__(weights)
        self.attacks = attacks_of(eps, eps_space, pgd_eps, pgd_steps)
        self.metrics = under_attack(eps, eps_space, pgd_eps, pgd_steps)

    def load(self, part: Part, folder: Path, seed: int) -> Split:
        """Read a part of the data as images in [0, 1]."""
        return stored(super().load(part, folder, seed)).unnormalized()

    def predict(
        self,
        model: Backbone,
        read: Callable[[Output], Tensor],
        images: Tensor,
        targets: Tensor,
    ) -> dict[str, Tensor]:
        """Return the predicted class of every image, without an attack and under each attack.

        Returns
        -------
        predictions
            ``attacked``, (B, 1 + attacks) int32: the predicted classes. The first column is
            without an attack.
        """
        pixel_model = PixelModel(model, read, self.normalization)
        with open_to_attacks(model):
            check_attackable(pixel_model, images, targets)
            every = [images, *(attacked(pixel_model, images, targets, a) for a in self.attacks)]
        with torch.no_grad():
            found = [pixel_model(changed).argmax(1).to(torch.int32) for changed in every]
        return {"attacked": torch.stack(found, 1)}

    def score(self, predictions: Predictions, targets: Tensor) -> dict[str, Score]:
        """Return accuracies over all images and over those classified correctly when clean."""
        if "correct" in predictions:
            bits = np.unpackbits(
                predictions["correct"].numpy(), axis=1, count=1 + len(self.attacks)
            )
            correct = torch.from_numpy(bits).bool()
        else:
            correct = predictions["attacked"] == targets[:, None]
        clean = correct[:, 0]
        scores = {"top1": mean_of(100.0 * clean)}
        for attack, right in zip(self.attacks, correct[:, 1:].unbind(1), strict=True):
            scores[attack.name] = mean_of(100.0 * right)
            scores[f"{attack.name}_of_correct"] = mean_of(100.0 * among_correct(right, clean))
        return {metric.name: scores[metric.name] for metric in self.metrics}

    def compact(self, predictions: Predictions, targets: Tensor) -> Predictions:
        """Return one bit for each prediction, whether it is correct, instead of its class."""
        correct = predictions["attacked"] == targets[:, None]
        return {"correct": torch.from_numpy(np.packbits(correct.numpy(), axis=1))}


def among_correct(right: Tensor, clean: Tensor) -> Tensor:
    """Return `right` for the images that are correct when clean; all False if there are none."""
    return right[clean] if bool(clean.any()) else clean
