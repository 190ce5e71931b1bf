"""Decoding of image files to tensors."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from mixbench.errors import DataError

DEEP_GREY = frozenset({"I", "F", "I;16", "I;16L", "I;16B", "I;16N"})  # modes of Pillow
GREY_16 = 65535
JPEG = b"\xff\xd8\xff"  # first bytes of a JPEG file


def read_image(path: Path) -> Tensor:
    """Return the pixels of an image file, uint8 (3, H, W).

    Grey, palette and CMYK images are converted to RGB. Grey levels of 16 bits are scaled to 8 bits.
    The EXIF orientation is ignored, because annotations and published results refer to the pixels
    as stored. JPEG files are decoded by simplejpeg, which is faster than Pillow and gives the same
    pixels, all other files by Pillow.

    Raises
    ------
    DataError
        If the file is missing, truncated or not an image, or has grey levels outside 16 bits.
    """
    with _naming_damage(path):
        data = path.read_bytes()
        pixels = _decode_jpeg(data) if data.startswith(JPEG) else None
        if pixels is None:
            with Image.open(io.BytesIO(data)) as image:
                deep = image.mode in DEEP_GREY
                pixels = _eight_bits(image, path) if deep else np.array(image.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _decode_jpeg(data: bytes) -> NDArray[np.uint8] | None:
    """Return the pixels of a JPEG file, (H, W, 3); None if Pillow is to decide what they are."""
    try:
        height, width, kind, _ = simplejpeg.decode_jpeg_header(data)
        # Pillow has rules of its own for CMYK, and for files that claim to be enormous.
        if kind not in {"YCbCr", "Gray"} or height * width > (Image.MAX_IMAGE_PIXELS or 0):
            return None
        return np.asarray(simplejpeg.decode_jpeg(data, "RGB"))
    except ValueError:  # damaged or unusual
        return None


def _eight_bits(image: Image.Image, path: Path) -> NDArray[np.uint8]:
    """Return a grey image of more than 8 bits as RGB; Pillow's own conversion clips it to white."""
    if not (
        image.mode.startswith("I;16") or (image.mode == "I" and image.format in {"PNG", "PPM"})
    ):
        raise DataError(
            f"The image {path} must have 8 bits per channel, or grey levels of 16 bits (got mode "
            f"{image.mode} of Pillow in {image.format} format): convert it first."
        )
    levels = np.array(image)
    grey = np.rint(levels.astype(np.float32) * (255 / GREY_16)).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


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
