"""Image files as tensors."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from mixbench.errors import DataError


def read_image(path: Path) -> Tensor:
    """Return an image file's pixels, uint8 (3, H, W).

    Grey, palette and CMYK images are converted to RGB. A note on how to turn the image (EXIF) is
    not followed: annotations, and the field's results, are of the pixels as they are stored.

    Raises
    ------
    DataError
        If the file is missing, truncated or no image.
    """
    with _naming_damage(path), Image.open(path) as image:
        pixels = np.array(image.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1)


def image_size(path: Path) -> tuple[int, int]:
    """Return an image file's width and height, from its header.

    Raises
    ------
    DataError
        If the file is missing or no image.
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
