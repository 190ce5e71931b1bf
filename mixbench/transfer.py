"""What tasks share that fine-tune a pre-trained model to images with one class each.

The method mixes where the model is pre-trained; fine-tuning is plain and the same for all methods,
unless the task's parameter `mix_in` says otherwise. Images are cut out of squares as in
Westlake-AI/openmixup@37e1372's recipe for birds: half of the area or more.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import nn

from mixbench.classification import Classification
from mixbench.contract import ClassIndex
from mixbench.errors import DataError
from mixbench.images.augment import ResizedCropFlip, central
from mixbench.images.folders import Listing
from mixbench.images.lists import read_lines
from mixbench.images.splits import StreamedSplit
from mixbench.models.weights import start_from

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
        self._fit = central(side)

    def start(self, model: nn.Module, trained: Mapping[str, nn.Module]) -> None:
        """Start from the weights that `weights` names."""
        start_from(model, self.weights, trained)

    def listed(self, path: Path, classes: Path, form: str, place: Callable[[str], Path]) -> Listing:
        """Return the images of a list, of the classes that take part.

        Parameters
        ----------
        path, classes
            Files with a line for each image, its class before the last slash, and for each class.
        form
            What a line of `path` must be.
        place
            Returns the file that a line stands for.

        Raises
        ------
        DataError
            If there are fewer classes, or a line has another form or a class that is not there.
        """
        known = read_lines(classes)
        self.names_of(known, classes)
        index = {name: number for number, name in enumerate(known)}
        paths, found = [], []
        for number, line in enumerate(read_lines(path), 1):
            name, _, image = line.rpartition("/")
            if not image or name not in index:
                raise DataError(
                    f"{path}, line {number}: must be {form}, of a class of {classes.name} "
                    f"(got {line!r})."
                )
            if index[name] < self.num_classes:
                paths.append(place(line))
                found.append(index[name])
        return Listing(paths, torch.tensor(found))

    def split(self, listing: Listing) -> StreamedSplit:
        """Return a part of these images."""
        index = ClassIndex(listing.classes, self.num_classes)
        return StreamedSplit(
            *(listing.paths, listing.classes, index, self.pixels, self._augment), fit=self._fit
        )
