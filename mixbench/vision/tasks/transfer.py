"""Base classes of tasks that fine-tune a pre-trained model on images with one class each.

By default, the method mixes in pre-training only, and fine-tuning is the same for all methods
without mixing; the task's parameter `mix_in` changes this. Training crops cover at least half of
the image's area, as in the recipe for birds of Westlake-AI/openmixup@37e1372.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

import torch

from mixbench.contract import ClassIndex, Part, Split
from mixbench.datasets.listing import named_images
from mixbench.declare import (
    FINE_TUNING,
    PRETRAINED_ON_IMAGENET,
    SMALL_NETS,
    TOP1_AND_TOP5,
    Count,
    CountOrZero,
    Fraction,
    Metric,
    Synthetic,
    Weights,
)
from mixbench.errors import DataError
from mixbench.streams import generator
from mixbench.vision.images.augment import ResizedCropFlip, central
from mixbench.vision.images.folders import Listing
from mixbench.vision.images.lists import check_unique, read_lines, write_lines
from mixbench.vision.images.scenes import looks, one_thing, write_images
from mixbench.vision.images.splits import StreamedSplit
from mixbench.vision.tasks.classification import Classification

AREA = (0.5, 1.0)  # range of a training crop's area, as a fraction of the image
SIZE = (72, 96)  # of generated images: height and width
RADIUS = (0.25, 0.42)  # range of generated objects' radii, as a fraction of the shorter side


class Transfer(Classification):
    """A classification task that fine-tunes a model pre-trained on other images.

    Parameters
    ----------
    classes
        Number of classes to use, from the first one; 0 uses all classes.
    side : pixels
        Height and width of the model's input.
    holdout
        Fraction of the training images of each class that is held out for validation.
    weights
        Initial weights of fine-tuning: ``pretrained`` (the model that the same method trains on
        ImageNet), ``synthetic`` (the same on generated images), ``timm`` or ``timm:TAG`` (weights
        that timm publishes), ``random`` or a file.
    mix_in
        Stage in which the method mixes: ``pretrain`` (pre-training), ``finetune`` (fine-tuning) or
        ``both``.
    per_class
        Number of training images of each class that are used, drawn by the seed; 0 uses all. The
        images that are held out are among them.

    Attributes
    ----------
    all_classes
        Number of classes of the data.
    """

    all_classes: ClassVar[int]

    synthetic = Synthetic(train=60, test=30, protocols=("quick",))
    needs = PRETRAINED_ON_IMAGENET
    by_protocol = {"quick": {"classes": 10, "side": 48}}
    metrics: tuple[Metric, ...] = TOP1_AND_TOP5
    models: ClassVar[tuple[str, ...]] = SMALL_NETS
    takes_timm = True
    protocols = FINE_TUNING

    def __init__(
        self,
        classes: CountOrZero = 0,
        side: Count = 224,
        holdout: Fraction = 0.1,
        weights: Weights = "pretrained",
        mix_in: Literal["pretrain", "finetune", "both"] = "pretrain",
        per_class: CountOrZero = 0,
    ) -> None:
        super().__init__(classes or self.all_classes, (side, side))
        self.holdout, self.per_class = holdout, per_class
        self.weights = weights
        self.mix_in = mix_in
        self._augment = ResizedCropFlip(side, area=AREA)
        self._fit = central(side)

    def load(self, part: Part, folder: Path, seed: int) -> Split:
        """Return the official test images, or the training or validation split of the others."""
        listing = self.listing(folder, test=part == "test")
        if part != "test":
            listing = listing.only(self.in_part(part, listing.classes, seed))
        index = ClassIndex(listing.classes, self.num_classes)
        return StreamedSplit(
            *(listing.paths, listing.classes, index, self.normalization, self._augment),
            fit=self._fit,
        )

    def listing(self, folder: Path, *, test: bool) -> Listing:
        """Return the official test or training images that belong to the task's classes."""
        raise NotImplementedError

    def write_class_folders(self, folder: Path, counts: Mapping[str, int], seed: int) -> None:
        """Write generated images of one object each, for a layout with one folder per class.

        Parameters
        ----------
        folder
            Folder to write into.
        counts
            Number of images of each class, by the subfolder with the class folders.
        seed
            Seed of the generator.
        """
        kinds = looks(self.num_classes)
        names = [kind.name.replace(" ", "_") for kind in kinds]
        order = torch.tensor(sorted(range(len(names)), key=names.__getitem__))
        for number, (part, count) in enumerate(counts.items()):
            rng = generator(seed, "synthetic", number)
            classes = order.repeat_interleave(count)
            for name in names:
                (folder / part / name).mkdir(parents=True)
            places = [folder / part / names[c] for c in classes.tolist()]
            paths = [place / f"{i:06}.jpg" for i, place in enumerate(places)]
            write_images(paths, one_thing(classes, rng, RADIUS), kinds, SIZE, rng)


class ListedTransfer(Transfer):
    """A transfer task whose images are listed in text files, one line ``CLASS/IMAGE`` per image.

    Attributes
    ----------
    class_list
        Path in the data of the file with one line per class.
    train_list
        Path in the data of the file with one line per training image.
    test_list
        Path in the data of the file with one line per test image.
    image_folder
        Folder to which the lines of `train_list` and `test_list` are relative.
    suffix
        End of the image files' names that the lines of `train_list` and `test_list` leave out.
    """

    class_list: ClassVar[str]
    train_list: ClassVar[str]
    test_list: ClassVar[str]
    image_folder: ClassVar[str]
    suffix: ClassVar[str]

    def listing(self, folder: Path, *, test: bool) -> Listing:
        """Return the listed test or training images that belong to the task's classes.

        Raises
        ------
        DataError
            If the data has too few classes, or a line is not ``CLASS/IMAGE`` with a known class.
        """
        path, classes = folder / (self.test_list if test else self.train_list), self.class_list
        known = read_lines(folder / classes)
        check_unique(known, "class", folder / classes)
        self.names_of(known, folder / classes)
        index = {name: number for number, name in enumerate(known)}
        images, found = [], []
        for number, line in enumerate(read_lines(path), 1):
            name, _, image = line.rpartition("/")
            if not image or name not in index:
                raise DataError(
                    f"{path}, line {number}: must be CLASS/IMAGE, where CLASS is a line of "
                    f"{Path(classes).name} (got {line!r})."
                )
            if index[name] < self.num_classes:
                images.append(f"{line.lstrip('/')}{self.suffix}")
                found.append(index[name])
        return Listing(named_images(folder / self.image_folder, images, path), torch.tensor(found))

    def image(self, folder: Path, line: str) -> Path:
        """Return the path of the image that a line of `train_list` or `test_list` names."""
        return folder / self.image_folder / f"{line.lstrip('/')}{self.suffix}"

    def class_names(self, folder: Path) -> list[str]:
        """Return the names of the task's classes, in the order of `class_list`."""
        path = folder / self.class_list
        return self.names_of(read_lines(path), path)

    def class_lines(self, words: Sequence[str]) -> list[str]:
        """Return the lines of `class_list` for generated classes, ending with their `words`."""
        return list(words)

    def synthesize(self, folder: Path, amount: Synthetic) -> None:
        """Write generated images with one object each, and their lists, in the data's layout."""
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
