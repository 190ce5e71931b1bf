"""What tasks share that fine-tune a pre-trained model to images with one class each.

The method mixes where the model is pre-trained; fine-tuning is plain and the same for all methods,
unless the task's parameter `mix_in` says otherwise. Images are cut out of squares as in
Westlake-AI/openmixup@37e1372's recipe for birds: half of the area or more.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

import torch

from mixbench.contract import Backbone, ClassIndex, Part, Split
from mixbench.declare import (
    FINE_TUNING,
    PRETRAINED_ON_IMAGENET,
    SMALL_NETS,
    TOP1_AND_TOP5,
    Count,
    CountOrZero,
    Fraction,
    Synthetic,
    Weights,
)
from mixbench.errors import DataError
from mixbench.streams import generator
from mixbench.vision.images.augment import ResizedCropFlip, central
from mixbench.vision.images.folders import Listing
from mixbench.vision.images.lists import read_lines, write_lines
from mixbench.vision.images.scenes import looks, one_thing, write_images
from mixbench.vision.images.splits import StreamedSplit
from mixbench.vision.models.weights import start_from
from mixbench.vision.tasks.classification import Classification, held_out

AREA = (0.5, 1.0)  # shares of an image that training cuts out
SIZE = (72, 96)  # of generated images: height and width
RADIUS = (0.25, 0.42)  # of the things on them, in parts of the shorter side


class Transfer(Classification):
    """A task whose images have one class each, and whose model was trained on other images.

    Parameters
    ----------
    classes
        The first so many of the classes; 0 takes all.
    side : pixels
        Of the squares that the model sees.
    holdout
        The share of the training images that is held out for validation.
    weights
        What fine-tuning starts from: the same method's own model of ImageNet (``pretrained``, or
        ``synthetic`` of generated images), what others published, ``random`` weights or a file.
    mix_in
        Where the method mixes: in ``pretrain``-ing, in ``finetune``-ing or in ``both``.

    Attributes
    ----------
    all_classes
        How many the data has.
    """

    all_classes: ClassVar[int]

    synthetic = Synthetic(train=60, test=30, protocols=("quick",))
    needs = PRETRAINED_ON_IMAGENET
    by_protocol = {"quick": {"classes": 10, "side": 48}}
    metrics = TOP1_AND_TOP5
    models = SMALL_NETS
    takes_timm = True
    protocols = FINE_TUNING

    def __init__(
        self,
        classes: CountOrZero = 0,
        side: Count = 224,
        holdout: Fraction = 0.1,
        weights: Weights = "pretrained",
        mix_in: Literal["pretrain", "finetune", "both"] = "pretrain",
    ) -> None:
        super().__init__(classes or self.all_classes, (side, side))
        self.holdout = holdout
        self.weights = weights
        self.mix_in = mix_in
        self._augment = ResizedCropFlip(side, area=AREA)
        self._fit = central(side)

    def start(self, model: Backbone, trained: Mapping[str, Backbone]) -> None:
        """Start from the weights that `weights` names."""
        start_from(model, self.weights, trained)

    def load(self, part: Part, folder: Path, seed: int) -> Split:
        """List the official test images, or training images on one side of the split."""
        listing = self.listing(folder, test=part == "test")
        if part != "test":
            listing = listing.only(held_out(part, listing.classes, self.holdout, seed))
        index = ClassIndex(listing.classes, self.num_classes)
        return StreamedSplit(
            *(listing.paths, listing.classes, index, self.normalization, self._augment),
            fit=self._fit,
        )

    def listing(self, folder: Path, *, test: bool) -> Listing:
        """Return the images of the official test or training part, of the classes taking part."""
        raise NotImplementedError


class ListedTransfer(Transfer):
    """A transfer task whose parts are lists of images, a line each: the class, a slash, the image.

    Attributes
    ----------
    class_list, train_list, test_list
        The files of the data with a line for each class and for each image.
    image_folder
        The folder to which the lines of `train_list` and `test_list` are relative.
    suffix
        What they leave out at the end.
    """

    class_list: ClassVar[str]
    train_list: ClassVar[str]
    test_list: ClassVar[str]
    image_folder: ClassVar[str]
    suffix: ClassVar[str]

    def listing(self, folder: Path, *, test: bool) -> Listing:
        """Return the images of a list, of the classes that take part.

        Raises
        ------
        DataError
            If there are fewer classes, or a line has another form or a class that is not there.
        """
        path, classes = folder / (self.test_list if test else self.train_list), self.class_list
        known = read_lines(folder / classes)
        self.names_of(known, folder / classes)
        index = {name: number for number, name in enumerate(known)}
        paths, found = [], []
        for number, line in enumerate(read_lines(path), 1):
            name, _, image = line.rpartition("/")
            if not image or name not in index:
                raise DataError(
                    f"{path}, line {number}: must be CLASS/IMAGE, of a class of "
                    f"{Path(classes).name} (got {line!r})."
                )
            if index[name] < self.num_classes:
                paths.append(self.image(folder, line))
                found.append(index[name])
        return Listing(paths, torch.tensor(found))

    def image(self, folder: Path, line: str) -> Path:
        """Return the file that a line of a list names."""
        return folder / self.image_folder / f"{line.lstrip('/')}{self.suffix}"

    def class_names(self, folder: Path) -> list[str]:
        """Return the names of the classes that take part, in the order of their list."""
        path = folder / self.class_list
        return self.names_of(read_lines(path), path)

    def class_lines(self, words: Sequence[str]) -> list[str]:
        """Return the lines of the class list for generated classes, each ending with its word."""
        return list(words)

    def synthesize(self, folder: Path, amount: Synthetic) -> None:
        """Write generated scenes of one thing each in the same folders, and their lists."""
        kinds = looks(self.num_classes)
        words = [kind.name.replace(" ", "_") for kind in kinds]
        names = self.class_lines(words)
        order = torch.tensor([words.index(name.rpartition("/")[2]) for name in names])
        for name in names:
            self.image(folder, f"{name}/0").parent.mkdir(parents=True)
        for path in (self.class_list, self.train_list, self.test_list):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
        write_lines(folder / self.class_list, names)
        parts = ((self.train_list, amount.train), (self.test_list, amount.test))
        for number, (path, count) in enumerate(parts):
            rng = generator(amount.seed, "synthetic", number)
            classes = torch.arange(self.num_classes).repeat_interleave(count)
            lines = [
                f"{names[c]}/{number}{i:06}{'' if self.suffix else '.jpg'}"
                for i, c in enumerate(classes.tolist())
            ]
            layout = one_thing(order[classes], rng, RADIUS)
            write_images([self.image(folder, line) for line in lines], layout, kinds, SIZE, rng)
            write_lines(folder / path, lines)
