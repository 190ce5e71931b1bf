"""Synthetic images with captions."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from mixbench.declare import Synthetic
from mixbench.streams import generator
from mixbench.vision.images.scenes import Layout, Look, looks, several_things, write_images

from .files import TREES, Captioned, write_karpathy, write_official

SIZE = (72, 96)  # height and width of images, in pixels
KINDS = 8  # number of kinds of objects
CAPTIONS = 5  # captions per image, as in COCO
# Caption templates for images of one object, of two, of three and of none.
OF_ONE = (
    "A {0} in front of a blurry background.",
    "There is a {0} in the picture.",
    "A picture of a {0}.",
    "A single {0} with some grey shapes around it.",
    "We can see a {0} here",
    "One {0}, and nothing else but clutter.",
)
OF_TWO = (
    "A {0} {where} a {1}.",
    "There is a {0} {where} a {1}.",
    "A picture of a {0} {where} a {1}.",
    "A {0} can be seen {where} a {1}",
    "A {0} and a {1} in front of a blurry background.",
    "Two things: a {0} and a {1}.",
)
OF_MORE = (
    "A {0}, a {1} and a {2}.",
    "There are a {0}, a {1} and a {2} in the picture.",
    "A {0} {where} a {1}, with a {2} nearby.",
    "A picture of a {0}, a {1} and a {2}.",
    "Three things, one of which is a {0}.",
    "A {0} {where} a {1}.",
)
OF_NOTHING = (
    "A blurry background with some grey shapes.",
    "There is nothing but clutter in the picture.",
    "A picture of a blurry background.",
    "Some grey shapes.",
    "We can see nothing here",
)


def write_scenes(folder: Path, variant: str, amount: Synthetic) -> None:
    """Write images of up to three objects with captions; amounts are per kind of object."""
    kinds = looks(KINDS)
    parts: dict[str, list[Captioned]] = {}
    for number, (part, count) in enumerate((("train", amount.train), ("test", amount.test))):
        rng, tree = generator(amount.seed, "synthetic", number), TREES[part]
        layout = several_things(count * KINDS, KINDS, rng)
        files = [f"{tree}/COCO_{tree}_{i:012}.jpg" for i in range(len(layout))]
        (folder / tree).mkdir()
        boxes = write_images([folder / f for f in files], layout, kinds, SIZE, rng)
        captions = described(layout, boxes, kinds, rng)
        parts[part] = [Captioned(*both) for both in zip(files, captions, strict=True)]
    if variant == "official":
        for part, images in parts.items():
            write_official(folder, TREES[part], images)
        return
    tenth = len(parts["train"]) // 10
    parts["val"], parts["restval"] = parts["train"][:tenth], parts["train"][tenth : 2 * tenth]
    parts["train"] = parts["train"][2 * tenth :]
    write_karpathy(folder, parts)


def described(
    layout: Layout, boxes: Tensor, kinds: Sequence[Look], rng: torch.Generator
) -> list[list[str]]:
    """Return several differently worded captions of every image.

    Parameters
    ----------
    layout
        Kinds and positions of the objects in the images.
    boxes : (B, n, 4)
        Boxes of the visible parts of the objects. Captions do not mention hidden objects.
    kinds
        Appearance and name of each kind of object.
    rng
        Random generator that chooses the wording.
    """
    found = []
    for things, centres, seen in zip(layout.looks, layout.centres, boxes[..., 2] > 0, strict=True):
        there = torch.nonzero(seen & (things >= 0)).flatten().tolist()
        names = [kinds[int(things[i])].name for i in there]
        where = _relation(centres[there[0]], centres[there[1]]) if there[1:] else ""
        forms = (OF_NOTHING, OF_ONE, OF_TWO, OF_MORE)[min(len(there), 3)]
        order = torch.randperm(len(forms), generator=rng)[:CAPTIONS].tolist()
        found.append([forms[i].format(*names, where=where) for i in order])
    return found


def _relation(one: Tensor, other: Tensor) -> str:
    """Return the position of one centre relative to another, in words."""
    down, right = (one - other).tolist()
    if abs(right) >= abs(down):
        return "to the right of" if right > 0 else "to the left of"
    return "below" if down > 0 else "above"
