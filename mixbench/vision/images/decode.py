"""Decoding of image files to tensors."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from mixbench.errors import DataError


def read_image(path: Path) -> Tensor:
    """Return the pixels of an image file, uint8 (3, H, W).

    Grey, palette and CMYK images are converted to RGB. The EXIF orientation is ignored, because
    annotations and published results refer to the pixels as stored.

    Raises
    ------
    DataError
        If the file is missing, truncated or not an image.
    """
    with _naming_damage(path), Image.open(path) as image:
        pixels = np.array(image.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1)


def image_size(path: Path) -> tuple[int, int]:
    """Return the width and height of an image file, from its header.

    Raises
    ------
    DataError
        If the file is missing or not an image.
    """
    with _naming_damage(path), Image.open(path) as image:
        return image.size


@contextmanager
def _naming_damage(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"The image {path} is missing.") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{path} is not an image file.") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"The image {path} is damaged: {error}.") from error
