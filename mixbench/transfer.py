"""What tasks share that fine-tune a pre-trained model to images with one class each.

The method mixes where the model is pre-trained; fine-tuning is plain and the same for all methods,
unless the task's parameter `mix_in` says otherwise. Images are cut out of squares as in
Westlake-AI/openmixup@37e1372's recipe for birds: half of the area or more.
"""

from collections.abc import Mapping
from functools import partial

from torch import nn

from mixbench.classification import Classification
from mixbench.contract import ClassIndex
from mixbench.images.augment import ResizedCropFlip, centre
from mixbench.images.folders import Listing
from mixbench.images.splits import IMAGENET_PIXELS, StreamedSplit
from mixbench.models.weights import start_from

MARGIN = 256 / 224  # of the short side over the central square that is tested
AREA = (0.5, 1.0)  # shares of an image that training cuts out


class Transfer(Classification):
    """A task whose images have one class each, and whose model was trained on other images.

    Parameters
    ----------
    side : pixels
        Of the squares that the model sees.
    holdout
        The share of the training images that is held out for validation.
    weights
        What fine-tuning starts from.
    mix_in
        Where the method mixes: in ``pretrain``-ing, in ``finetune``-ing or in ``both``.
    """

    def __init__(self, classes: int, side: int, holdout: float, weights: str, mix_in: str) -> None:
        super().__init__(classes, (side, side))
        self.holdout = holdout
        self.weights = weights
        self.mix_in = mix_in
        self._augment = ResizedCropFlip(side, area=AREA)
        self._fit = partial(centre, short_side=round(MARGIN * side), size=side)

    def start(self, model: nn.Module, trained: Mapping[str, nn.Module]) -> None:
        """Start from the weights that `weights` names."""
        start_from(model, self.weights, trained)

    def split(self, listing: Listing) -> StreamedSplit:
        """Return a part of these images."""
        index = ClassIndex(listing.classes, self.num_classes)
        return StreamedSplit(
            *(listing.paths, listing.classes, index, IMAGENET_PIXELS, self._augment), fit=self._fit
        )
