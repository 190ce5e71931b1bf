"""Augmentations of timm and torchvision that a recipe adds to those of the task.

They draw from the global generators of Python, numpy and torch. Here each image's own draw seeds
them, so that an image does not depend on the batch or on the process that reads it.
"""

import random  # noqa: TID251  # what timm draws from
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms import TrivialAugmentWide
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from mixbench.errors import BadParameter

TRIVIAL = "trivial"
RAND_AUGMENT = re.compile(r"rand-m\d+(\.\d+)?(-[a-z]+\d+(\.\d+)?)*")  # timm ignores other parts
SEEDS = 1 << 24  # values of a float32 draw in [0, 1)
_one_at_a_time = threading.Lock()  # the generators belong to the whole process


def auto_augment(policy: str, image: Tensor, draw: float) -> Tensor:
    """Return an image, uint8 (3, H, W), changed by a policy of automatic augmentation.

    Parameters
    ----------
    policy
        Value of `mixbench.declare.Recipe.auto_augment`.
    image
        The image.
    draw
        A number in [0, 1) that decides what is done to the image.
    """
    transform = transform_of(policy, (image.shape[-2], image.shape[-1]))
    with _seeded([]) as seed:
        seed(draw)
        changed: Tensor = pil_to_tensor(transform(to_pil_image(image)))
        return changed


@cache
def transform_of(policy: str, size: tuple[int, int]) -> Callable[..., Any]:
    """Return the transform of PIL images that a policy names.

    Parameters
    ----------
    policy
        Value of `mixbench.declare.Recipe.auto_augment`.
    size
        Height and width of the images, which limit translations (timm@aa4b585,
        timm/data/transforms_factory.py:188-204).

    Raises
    ------
    BadParameter
        If there is no such policy.
    """
    from timm.data.auto_augment import rand_augment_transform

    limits = {"translate_const": int(min(size) * 0.45), "img_mean": (124, 116, 104)}
    made: Any = None
    if policy == TRIVIAL:
        made = TrivialAugmentWide()
    elif RAND_AUGMENT.fullmatch(policy):
        with suppress(AssertionError, ValueError, NotImplementedError, KeyError):
            made = rand_augment_transform(policy, limits)
    if made is None:
        raise BadParameter(
            f"auto_augment must be {TRIVIAL}, or timm's description of a RandAugment such as "
            f"rand-m9-mstd0.5-inc1 (got {policy!r})."
        )
    for operation in getattr(made, "ops", ()):
        if operation.name.startswith("Posterize"):
            operation.aug_fn = _posterize
    found: Callable[..., Any] = made
    return found


def _posterize(image: Image.Image, bits: int, **_: object) -> Image.Image:
    """Keep this number of bits of each pixel. Pillow refuses less than 1, which timm may draw."""
    if bits <= 0:
        return Image.new(image.mode, image.size)
    return ImageOps.posterize(image, bits) if bits < 8 else image  # all bits of a pixel


def erase(images: Tensor, prob: float, draws: Tensor) -> Tensor:
    """Replace a random box of some images by normal noise, in place, and return the images.

    Parameters
    ----------
    images : (B, C, H, W) float32
        Normalised images.
    prob
        Probability of erasing, for each image.
    draws : (B,)
        A number in [0, 1) for each image, which decides what is erased.
    """
    from timm.data.random_erasing import RandomErasing

    erasing = RandomErasing(prob, mode="pixel", device=images.device)
    devices = [images.device] if images.device.type == "cuda" else []
    with _seeded(devices) as seed:
        for image, draw in zip(images, draws.tolist(), strict=True):
            seed(draw)
            erasing(image)
    return images


@contextmanager
def _seeded(devices: list[torch.device]) -> Iterator[Callable[[float], None]]:
    """Yield a function that seeds all global generators; restore them at the exit."""

    def seed(draw: float) -> None:
        number = int(draw * SEEDS)
        random.seed(number)
        np.random.seed(number)  # noqa: NPY002  # what timm draws from
        torch.default_generator.manual_seed(number)  # not those of GPUs, as torch.manual_seed
        for device in devices:
            torch.cuda.default_generators[device.index or 0].manual_seed(number)

    with _one_at_a_time, torch.random.fork_rng(devices):
        python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
        try:
            yield seed
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002
