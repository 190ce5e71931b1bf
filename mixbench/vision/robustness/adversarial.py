"""What tasks share whose test images are attacked: FGSM, and PGD beside it.

FGSM (Goodfellow et al., arXiv:1412.6572) moves every pixel by eps along the sign of the gradient
of the cross-entropy with the true class; it measures hidden gradients as much as robustness. PGD
(Madry et al., arXiv:1706.06083) repeats that from a random start, and is not so easily misled. All
images are attacked, also those that are wrong without it, and all of them count.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

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
    """A task that attacks the test images of its subject.

    Parameters
    ----------
    eps
        Of FGSM; the first one ranks.
    eps_space
        In which these are numbers: of ``pixel``s, or of ``normalized`` input. Images stay in [0, 1]
        either way. At the paper's three, the other space is reported as well.
    pgd_eps
        Of PGD, in pixels.
    pgd_steps
        Of PGD, each of a quarter of its eps.
    weights
        Which model is attacked: what training with the same method and seed ended with
        (``pretrained``), what timm publishes, or that in a file.
    """

    by_protocol = {"quick": {"eps": EPSILONS_ASCENDING}}  # of the first, small nets withstand some
    metrics = under_attack()

    # Gradients need what a prediction forgets.
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
        """Read a part of the data, with images in [0, 1]."""
        return stored(super().load(part, folder, seed)).unnormalized()

    def predict(
        self,
        model: Backbone,
        read: Callable[[Output], Tensor],
        images: Tensor,
        targets: Tensor,
    ) -> dict[str, Tensor]:
        """Return the classes predicted of every image, clean and under each attack.

        Returns
        -------
        predictions
            ``attacked``, (B, 1 + attacks) int32.
        """
        pixel_model = PixelModel(model, read, self.normalization)
        with open_to_attacks(model):
            check_attackable(pixel_model, images, targets)
            every = [images, *(attacked(pixel_model, images, targets, a) for a in self.attacks)]
        with torch.no_grad():
            found = [pixel_model(changed).argmax(1).to(torch.int32) for changed in every]
        return {"attacked": torch.stack(found, 1)}

    def score(self, predictions: Predictions, targets: Tensor) -> dict[str, Score]:
        """Return the accuracies over all images, and over those that are right when clean."""
        correct = predictions["attacked"] == targets[:, None]
        clean = correct[:, 0]
        scores = {"top1": mean_of(100.0 * clean)}
        for attack, right in zip(self.attacks, correct[:, 1:].unbind(1), strict=True):
            scores[attack.name] = mean_of(100.0 * right)
            scores[f"{attack.name}_of_correct"] = mean_of(100.0 * among_correct(right, clean))
        return {metric.name: scores[metric.name] for metric in self.metrics}


def among_correct(right: Tensor, clean: Tensor) -> Tensor:
    """Return who is right among those that are when clean; if none is, that none is left."""
    return right[clean] if bool(clean.any()) else clean
