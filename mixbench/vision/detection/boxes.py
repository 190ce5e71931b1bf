"""Targets and predictions of detection as tensors, and letterboxing of images into squares.

Boxes are in pixels of the stored image, in VOC's convention: first column, first row, last column
and last row, counted from 1. A row has six values: the box, the class, and a last value, which is
whether the object is difficult (targets) or the score (predictions). Rows of class -1 hold no
object. The first row of an image's target is its frame: a box that covers the whole image.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from mixbench.vision.detection.annotations import Annotated
from mixbench.vision.images.augment import resize

NOTHING = -1  # class of rows without an object
CLASS, DIFFICULT, SCORE = 4, 5, 5  # columns after the box
PADDING = (124, 116, 104)  # mean pixel of ImageNet: close to 0 after normalization


def targets_of(images: Iterable[Annotated]) -> Tensor:
    """Return the targets of images, (N, 1 + objects, 6) float32.

    Boxes are clipped to the image; objects without a pixel inside the image are dropped.
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
    """Stack the rows of all images, (N, most, 6), padded with rows of class -1."""
    return pad_sequence(rows, batch_first=True, padding_value=NOTHING)


def mirrored(targets: Tensor) -> Tensor:
    """Return the targets of the horizontally flipped images, (N, M, 6)."""
    width = targets[:, :1, 2]
    left, right = width + 1 - targets[..., 2], width + 1 - targets[..., 0]
    flipped = torch.stack([left, targets[..., 1], right, targets[..., 3]], -1)
    flipped = torch.cat([flipped, targets[..., 4:]], -1)
    return torch.where(_there(targets)[..., None], flipped, targets)


def _there(targets: Tensor) -> Tensor:
    """Return a mask of the rows that hold the frame or an object, (N, M) bool."""
    there = targets[..., CLASS] != NOTHING
    there[:, 0] = True
    return there


def fitted_size(width: int, height: int, side: int) -> tuple[int, int]:
    """Return the height and width of an image resized so that its longer side is `side`."""
    longer = max(width, height)
    return max(round(height * side / longer), 1), max(round(width * side / longer), 1)


def letterbox(image: Tensor, side: int) -> Tensor:
    """Resize an image, uint8 (3, H, W), into the top left of a grey square; keep its aspect."""
    height, width = fitted_size(image.shape[2], image.shape[1], side)
    square = torch.tensor(PADDING, dtype=torch.uint8)[:, None, None].repeat(1, side, side)
    square[:, :height, :width] = resize(image, (height, width))
    return square


class Fitted(NamedTuple):
    """Placement of an image in its square.

    Attributes
    ----------
    size : pixels
        Height and width of the resized image.
    scale : (4,)
        Factors from coordinates in the image to coordinates in the square, for the four values
        of a box.
    """

    size: tuple[int, int]
    scale: Tensor


def fitted(target: Tensor, side: int) -> Fitted:
    """Return the placement of a target's image in a square; the target has shape (M, 6)."""
    width, height = (int(value) for value in target[0, 2:4])
    size = fitted_size(width, height, side)
    return Fitted(size, target.new_tensor([size[1] / width, size[0] / height] * 2))


def to_torchvision_targets(target: Tensor, side: int) -> dict[str, Tensor]:
    """Return an image's training target in torchvision's format, without difficult objects.

    Returns
    -------
    boxes : (n, 4)
        Left, top, right and bottom edges in pixels of the square.
    labels : (n,) int64
        Classes counted from 1; 0 is the background.
    """
    easy = target[(target[:, CLASS] != NOTHING) & (target[:, DIFFICULT] == 0)]
    edges = easy[:, :4] - easy.new_tensor([1.0, 1.0, 0.0, 0.0])
    return {
        "boxes": edges * fitted(target, side).scale,
        "labels": easy[:, CLASS].long() + 1,
    }


def detections(found: dict[str, Tensor], place: Fitted, number: int) -> Tensor:
    """Convert a detector's output for an image to a fixed number of rows in the image's pixels.

    Parameters
    ----------
    found
        ``boxes``, ``labels`` and ``scores`` in torchvision's format, in pixels of the square.
    place
        Placement of the image in its square.
    number
        Number of rows to return; missing rows are padded with class -1.
    """
    edges = found["boxes"] / place.scale
    boxes = edges + edges.new_tensor([1.0, 1.0, 0.0, 0.0])
    rest = torch.stack([found["labels"].to(boxes.dtype) - 1, found["scores"]], 1)
    rows = torch.cat([boxes, rest], 1)
    return F.pad(rows, (0, 0, 0, number - len(rows)), value=NOTHING)
