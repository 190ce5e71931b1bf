"""The arithmetic of mixing: pure batched functions, no randomness, no loop over items.

Axes: batch (B), channel (C), height (H), width (W). Images may be float32, bfloat16 or bytes. The
first argument is modified only where a function's name ends in an underscore.
"""

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor


class Box(NamedTuple):
    """Half-open pixel ranges: rows ``top:bottom``, columns ``left:right``."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def area(self) -> int:
        """Pixels inside."""
        return (self.bottom - self.top) * (self.right - self.left)


def beta(alpha: float, rng: torch.Generator, size: int = 1) -> Tensor:
    """Draw from Beta(α, α), (size,), in float64 on the CPU, for every α > 0.

    Beta is the share of one of two Gamma(α) draws. For a small α both are too small for a float, so
    they are drawn as Gamma(α + 1) · U^(1/α), by their logarithms.
    """
    shape = torch.full((size, 2), alpha + 1, dtype=torch.float64)
    uniform = 1 - torch.rand(size, 2, generator=rng, dtype=torch.float64)  # in (0, 1]
    logs = torch._standard_gamma(shape, generator=rng).log() + uniform.log() / alpha
    return torch.sigmoid(logs[:, 0] - logs[:, 1])


def permutation(size: int, rng: torch.Generator, device: torch.device) -> Tensor:
    """Draw a partner for every item of a batch, (size,) int64 on `device`."""
    order = torch.randperm(size, generator=rng)
    if device.type == "cuda":  # without waiting for what the device does
        return order.pin_memory().to(device, non_blocking=True)
    return order.to(device)


def blend(x: Tensor, partner: Tensor, lam: float) -> Tensor:
    """Return ``lam * x + (1 - lam) * x[partner]``; bytes are rounded."""
    if not x.is_floating_point():
        return blend(x.to(torch.float32), partner, lam).round_().to(x.dtype)
    return x.index_select(0, partner).lerp_(x, lam)


def rolled(size: int, device: torch.device) -> Tensor:
    """Return every item's predecessor in the batch, the last for the first, (size,) int64."""
    return torch.arange(size, device=device).roll(1)


def blend_rolled(x: Tensor, lam: float) -> Tensor:
    """Return ``lam * x + (1 - lam) * x.roll(1, 0)`` in one pass over the memory.

    It gathers nothing, so it is twice as fast as `blend`. No gradient passes through it.
    """
    mixed = torch.empty_like(x)
    torch.lerp(x[:-1], x[1:], lam, out=mixed[1:])
    torch.lerp(x[-1:], x[:1], lam, out=mixed[:1])
    return mixed


def clipped_box(centre: tuple[int, int], half: tuple[int, int], size: tuple[int, int]) -> Box:
    """Return the box around a pixel, clipped at the image's edges; pairs are (rows, columns)."""
    (row, column), (half_h, half_w), (height, width) = centre, half, size
    return Box(
        top=max(row - half_h, 0),
        bottom=min(row + half_h, height),
        left=max(column - half_w, 0),
        right=min(column + half_w, width),
    )


def around(centre: tuple[Tensor, Tensor], half: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Return which pixels lie in each item's own box, clipped at the edges, (B, H, W) bool.

    Parameters
    ----------
    centre : (B,) int64 each
        The rows and the columns of the boxes' centres.
    """
    inside = []
    for place, reach, length in zip(centre, half, size, strict=True):
        places = torch.arange(length, device=place.device)
        inside.append((places >= place[:, None] - reach) & (places < place[:, None] + reach))
    return inside[0][:, :, None] & inside[1][:, None]


def paste_box(x: Tensor, partner: Tensor, box: Box) -> Tensor:
    """Return `x` with the same box of every item taken from its partner."""
    return paste_box_(x.clone(), partner, box)


def paste_box_(x: Tensor, partner: Tensor, box: Box) -> Tensor:
    """Paste in place, which moves no more memory than the box has; return `x`."""
    inside = x[:, :, box.top : box.bottom, box.left : box.right]
    inside.copy_(inside.index_select(0, partner))
    return x


def cell_edges(length: int, grid: int) -> list[int]:
    """Return where the cells of a grid begin along an axis, and the end: grid + 1 pixels.

    Pixel y lies in cell ``y * grid // length``, for every length; where `grid` divides it, all
    cells are equal.
    """
    return [-(-cell * length // grid) for cell in range(grid + 1)]


@cache
def cell_areas(size: tuple[int, int], grid: int) -> Tensor:
    """Return the share of the image that each cell covers, (grid * grid,) float32, rows first.

    It is made once for each size, and must not be modified.
    """
    heights, widths = (torch.tensor(cell_edges(n, grid)).diff() for n in size)
    return (heights[:, None] * widths / (size[0] * size[1])).flatten()


@cache
def cell_of_pixels(size: tuple[int, int], grid: int, device: torch.device) -> Tensor:
    """Return in which cell every pixel lies, (H, W) int64. It must not be modified, either."""
    rows, columns = (torch.arange(n) * grid // n for n in size)
    return (rows[:, None] * grid + columns).to(device)  # there before any stream reads it


def compose_grid(x: Tensor, index: Tensor, grid: int) -> Tensor:
    """Return images whose every cell is taken from an item of the batch.

    Parameters
    ----------
    x : (N, C, H, W)
    index : (B, grid * grid) int64
        The item that fills each cell, rows of cells first.
    """
    channels, height, width = x.shape[1:]
    # Every row of pixels is cut where cells meet, or at every pixel if cells differ in width; the
    # pieces of all items are one table, from which one call takes what is wanted.
    pieces = grid if width % grid == 0 else width
    cells = cell_of_pixels((height, pieces), grid, x.device).flatten()
    number = channels * height * pieces
    first = index.int().index_select(1, cells) * number  # half the bytes of int64 are enough
    places = torch.arange(number, dtype=torch.int32, device=x.device).view(channels, -1)
    places = (first[:, None] + places).flatten()
    taken = x.reshape(-1, width // pieces).index_select(0, places)
    return taken.view(len(index), channels, height, width)
