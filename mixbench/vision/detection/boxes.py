"""Targets and predictions of detection as tensors, and the squares into which images are fitted.

Boxes are in the pixels of the image as it is stored, as VOC's annotations count them: columns and
rows of the first and of the last pixel, from 1. A row is a box, a class, and whether the object is
difficult to see or, of a prediction, the score. Rows of class -1 are no object. The first row of an
image's target is its frame, the box that is the whole image.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from mixbench.vision.detection.annotations import Annotated
from mixbench.vision.images.augment import resize

NOTHING = -1  # the class of rows that are no object
CLASS, DIFFICULT, SCORE = 4, 5, 5  # columns after the box
PADDING = (124, 116, 104)  # the mean of ImageNet's pixels: next to 0, when normalised


def targets_of(images: Iterable[Annotated]) -> Tensor:
    """Return the targets of images, (N, 1 + objects, 6) float32.

    Boxes are cut off at the image's edges; objects of which no pixel is left are left out.
    """
    return stacked([_target(image) for image in images])


def _target(image: Annotated) -> Tensor:
    width, height = image.size
    rows = [(1.0, 1.0, float(width), float(height), NOTHING, 0)]
    for thing in image.things:
        left, top = (max(value, 1.0) for value in thing.box[:2])
        right, bottom = min(thing.box[2], width), min(thing.box[3], height)
        if left <= right and top <= bottom:
            rows.append((left, top, right, bottom, thing.class_id, int(thing.difficult)))
    return torch.tensor(rows)


def stacked(rows: list[Tensor]) -> Tensor:
    """Return the rows of all images, (N, most, 6), filled up with rows of nothing."""
    return pad_sequence(rows, batch_first=True, padding_value=NOTHING)


def mirrored(targets: Tensor) -> Tensor:
    """Return the targets of the images' mirror images, (N, M, 6)."""
    width = targets[:, :1, 2]
    left, right = width + 1 - targets[..., 2], width + 1 - targets[..., 0]
    flipped = torch.stack([left, targets[..., 1], right, targets[..., 3]], -1)
    flipped = torch.cat([flipped, targets[..., 4:]], -1)
    return torch.where(_there(targets)[..., None], flipped, targets)


def _there(targets: Tensor) -> Tensor:
    """Return which rows are the frame or an object, (N, M) bool."""
    there = targets[..., CLASS] != NOTHING
    there[:, 0] = True
    return there


def fitted_size(width: int, height: int, side: int) -> tuple[int, int]:
    """Return the height and width of an image that is as large as a square of that side allows."""
    longer = max(width, height)
    return max(round(height * side / longer), 1), max(round(width * side / longer), 1)


def letterbox(image: Tensor, side: int) -> Tensor:
    """Return an image, uint8 (3, H, W), at the top left of a square of grey, its shape kept."""
    height, width = fitted_size(image.shape[2], image.shape[1], side)
    square = torch.tensor(PADDING, dtype=torch.uint8)[:, None, None].repeat(1, side, side)
    square[:, :height, :width] = resize(image, (height, width))
    return square


class Fitted(NamedTuple):
    """An image as it lies in its square.

    Attributes
    ----------
    size : pixels
        Height and width.
    scale : (4,)
        Pixels of the square for each of the image's, of a box's four numbers.
    """

    size: tuple[int, int]
    scale: Tensor


def fitted(target: Tensor, side: int) -> Fitted:
    """Return how the image of a target, (M, 6), lies in a square of that side."""
    width, height = (int(value) for value in target[0, 2:4])
    size = fitted_size(width, height, side)
    return Fitted(size, target.new_tensor([size[1] / width, size[0] / height] * 2))


def to_torchvision_targets(target: Tensor, side: int) -> dict[str, Tensor]:
    """Return what a detector learns of an image, without difficult objects, as torchvision has it.

    Returns
    -------
    boxes : (n, 4)
        Left, top, right and bottom edges in the square.
    labels : (n,) int64
        Classes from 1: 0 is the background.
    """
    easy = target[(target[:, CLASS] != NOTHING) & (target[:, DIFFICULT] == 0)]
    edges = easy[:, :4] - easy.new_tensor([1.0, 1.0, 0.0, 0.0])
    return {
        "boxes": edges * fitted(target, side).scale,
        "labels": easy[:, CLASS].long() + 1,
    }


def detections(found: dict[str, Tensor], place: Fitted, number: int) -> Tensor:
    """Return what a detector found in an image as so many rows, in the image's pixels.

    Parameters
    ----------
    found
        ``boxes``, ``labels`` and ``scores`` as torchvision has them, in the square.
    """
    edges = found["boxes"] / place.scale
    boxes = edges + edges.new_tensor([1.0, 1.0, 0.0, 0.0])
    rest = torch.stack([found["labels"].to(boxes.dtype) - 1, found["scores"]], 1)
    rows = torch.cat([boxes, rest], 1)
    return F.pad(rows, (0, 0, 0, number - len(rows)), value=NOTHING)
