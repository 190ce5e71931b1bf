"""Synthetic scenes of one to three objects, annotated in the format of Pascal VOC."""

from collections.abc import Sequence
from pathlib import Path

import torch

from mixbench.vision.detection.annotations import ObjectAnnotation, write_annotation
from mixbench.vision.images.lists import write_lines
from mixbench.vision.images.scenes import Look, several_things, write_images

SIZE = (72, 96)  # height and width of the images
DIFFICULT = 0.1  # fraction of objects that are marked as difficult


def write_scenes(
    root: Path, part: str, names: Sequence[str], kinds: list[Look], rng: torch.Generator
) -> None:
    """Write a list of scenes and their annotations into a VOC folder.

    Parameters
    ----------
    root
        VOC folder to write to.
    part
        Name of the image list.
    names
        Names of the scenes, each of which shows one to three objects.
    kinds
        Appearance of the objects of each class.
    rng
        Generator of all random draws.
    """
    for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    layout = several_things(len(names), len(kinds), rng)
    paths = [root / f"JPEGImages/{name}.jpg" for name in names]
    boxes = write_images(paths, layout, kinds, SIZE, rng)
    hard = torch.rand(layout.looks.shape, generator=rng) < DIFFICULT
    for name, *scene in zip(names, layout.looks, boxes, hard, strict=True):
        things = _seen(*(column.tolist() for column in scene))
        write_annotation(root / f"Annotations/{name}.xml", SIZE[::-1], things)
    write_lines(root / f"ImageSets/Main/{part}.txt", names)


def _seen(looks: list[int], boxes: list[list[float]], hard: list[bool]) -> list[ObjectAnnotation]:
    """Return annotations of the objects that are visible, with boxes counted from 1."""
    return [
        ObjectAnnotation(look, (left + 1, top + 1, left + width, top + height), difficult)
        for look, (left, top, width, height), difficult in zip(looks, boxes, hard, strict=True)
        if look >= 0 and width > 0
    ]
