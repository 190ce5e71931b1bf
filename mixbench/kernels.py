"""Mixing kernels: pure batched functions, without randomness of their own or loops over items.

Axes: batch (B), channel (C), height (H), width (W). Images are float32, bfloat16 or uint8. The
first argument is modified only if the name of the function ends in an underscore.
"""

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor


class Box(NamedTuple):
    """A box of pixels: rows ``top:bottom`` and columns ``left:right``, both half-open.

    Attributes
    ----------
    top
        First row inside the box.
    bottom
        First row below the box.
    left
        First column inside the box.
    right
        First column to the right of the box.
    """

    top: int
    bottom: int
    left: int
    right: int

    @property
    def area(self) -> int:
        """Number of pixels inside the box."""
        return (self.bottom - self.top) * (self.right - self.left)


def beta(alpha: float, rng: torch.Generator, size: int = 1) -> Tensor:
    """Draw from Beta(α, α), (size,), in float64 on the CPU, for every α > 0.

    A Beta sample is X / (X + Y) for two Gamma(α) samples X and Y. For small α both underflow, so
    their logarithms are computed, from Gamma(α + 1) · U^(1/α).
    """
    shape = torch.full((size, 2), alpha + 1, dtype=torch.float64)
    uniform = 1 - torch.rand(size, 2, generator=rng, dtype=torch.float64)  # in (0, 1]
    logs = torch._standard_gamma(shape, generator=rng).log() + uniform.log() / alpha
    return torch.sigmoid(logs[:, 0] - logs[:, 1])


def permutation(size: int, rng: torch.Generator, device: torch.device) -> Tensor:
    """Draw a random partner for every item of a batch, (size,) int64 on `device`."""
    order = torch.randperm(size, generator=rng)
    if device.type == "cuda":  # without synchronizing with the device
        return order.pin_memory().to(device, non_blocking=True)
    return order.to(device)


def blend(x: Tensor, partner: Tensor, lam: float | Tensor) -> Tensor:
    """Return ``lam * x + (1 - lam) * x[partner]``; integer images are rounded.

    `lam` is a number, or has one value for the batch, (1,), or one for each item, (B,).
    """
    if not x.is_floating_point():
        return blend(x.to(torch.float32), partner, lam).round_().to(x.dtype)
    return x.index_select(0, partner).lerp_(x, _beside(lam, x))


def _beside(lam: float | Tensor, x: Tensor) -> float | Tensor:
    """Return λ as a number, or in a shape that is broadcast over the items of a batch."""
    if not isinstance(lam, Tensor) or lam.numel() == 1:
        return float(lam)
    return lam.to(x.device, x.dtype).view(-1, *[1] * (x.dim() - 1))


def rolled_index(size: int, device: torch.device) -> Tensor:
    """Return the index of each item's predecessor, (size,) int64; the first item gets the last."""
    return torch.arange(size, device=device).roll(1)


def blend_rolled(x: Tensor, lam: float | Tensor) -> Tensor:
    """Return ``lam * x + (1 - lam) * x.roll(1, 0)`` in one pass over the memory; see `blend`.

    It needs no gather, so it is twice as fast as `blend`. It does not propagate gradients.
    """
    if not x.is_floating_point():
        return blend_rolled(x.to(torch.float32), lam).round_().to(x.dtype)
    mixed, share = torch.empty_like(x), _beside(lam, x)
    first, others = (share[:1], share[1:]) if isinstance(share, Tensor) else (share, share)
    torch.lerp(x[:-1], x[1:], others, out=mixed[1:])
    torch.lerp(x[-1:], x[:1], first, out=mixed[:1])
    return mixed


def clipped_box(centre: tuple[int, int], half: tuple[int, int], size: tuple[int, int]) -> Box:
    """Return the box around a pixel, clipped to the image.

    Parameters
    ----------
    centre : (row, column)
        Centre of the box, in pixels.
    half : (rows, columns)
        Half the height and half the width of the box, in pixels.
    size : (height, width)
        Size of the image, in pixels.
    """
    (row, column), (half_h, half_w), (height, width) = centre, half, size
    return Box(
        top=max(row - half_h, 0),
        bottom=min(row + half_h, height),
        left=max(column - half_w, 0),
        right=min(column + half_w, width),
    )


def box_masks(
    centre: tuple[Tensor, Tensor],
    half: tuple[int, int] | tuple[Tensor, Tensor],
    size: tuple[int, int],
) -> Tensor:
    """Return a mask of the pixels in each item's own box, clipped to the image, (B, H, W) bool.

    Parameters
    ----------
    centre : (B,) int64 each
        Rows and columns of the boxes' centres.
    half : (rows, columns)
        Half the height and half the width of every box, in pixels; or of each box, (B,) int64.
    size : (height, width)
        Size of the images, in pixels.
    """
    inside = []
    for place, reach, length in zip(centre, map(_column, half), size, strict=True):
        places = torch.arange(length, device=place.device)
        inside.append((places >= place[:, None] - reach) & (places < place[:, None] + reach))
    return inside[0][:, :, None] & inside[1][:, None]


def _column(values: int | Tensor) -> int | Tensor:
    """Return one value for each item as a column, and a number as it is."""
    return values[:, None] if isinstance(values, Tensor) else values


def paste_box(x: Tensor, partner: Tensor, box: Box) -> Tensor:
    """Return a copy of `x` in which the box of every item comes from its partner."""
    return paste_box_(x.clone(), partner, box)


def paste_box_(x: Tensor, partner: Tensor, box: Box) -> Tensor:
    """Paste the box of every item's partner in place, copying only the box; return `x`."""
    inside = x[:, :, box.top : box.bottom, box.left : box.right]
    inside.copy_(inside.index_select(0, partner))
    return x


def cell_edges(length: int, grid: int) -> list[int]:
    """Return the first pixel of every cell along an axis, and the length: grid + 1 integers.

    Pixel y lies in cell ``y * grid // length``, for every length. If `grid` divides the length, all
    cells have the same size.
    """
    return [-(-cell * length // grid) for cell in range(grid + 1)]


@cache
def cell_areas(size: tuple[int, int], grid: int) -> Tensor:
    """Return the fraction of the image that each cell covers, (grid * grid,) float32, row-major.

    The result is cached and must not be modified.
    """
    heights, widths = (torch.tensor(cell_edges(n, grid)).diff() for n in size)
    return (heights[:, None] * widths / (size[0] * size[1])).flatten()


@cache
def cell_of_pixels(size: tuple[int, int], grid: int, device: torch.device) -> Tensor:
    """Return the cell that every pixel lies in, (H, W) int64.

    The result is cached and must not be modified.
    """
    rows, columns = (torch.arange(n) * grid // n for n in size)
    return (rows[:, None] * grid + columns).to(device)  # synchronous: any stream may read it


def compose_grid(x: Tensor, index: Tensor, grid: int) -> Tensor:
    """Return images in which every cell comes from an item of the batch.

    Parameters
    ----------
    x : (N, C, H, W)
        The images to take cells from.
    index : (B, grid * grid) int64
        The item that fills each cell, in row-major order of the cells.
    grid
        Number of cells along each axis.

    Returns
    -------
    composed : (B, C, H, W)
        The composed images.
    """
    channels, height, width = x.shape[1:]
    # Split each pixel row at the cell edges, or at every pixel if cells differ in width. The pieces
    # of all items form one table, from which one index_select takes the composed images.
    pieces = grid if width % grid == 0 else width
    cells = cell_of_pixels((height, pieces), grid, x.device).flatten()
    number = channels * height * pieces
    # int32 halves the memory traffic, but cannot count the pieces of very large batches.
    counting = torch.int32 if len(x) * number <= torch.iinfo(torch.int32).max else torch.int64
    first = index.to(counting).index_select(1, cells) * number
    places = torch.arange(number, dtype=counting, device=x.device).view(channels, -1)
    places = (first[:, None] + places).flatten()
    taken = x.reshape(-1, width // pieces).index_select(0, places)
    return taken.view(len(index), channels, height, width)
