"""Outlines and textures of generated objects: geometric figures and birds."""

import math

import torch
from torch import Tensor

# Gielis' superformula (Am. J. Botany 90, 2003): r = (|cos(mφ/4)|^n2 + |sin(mφ/4)|^n3)^(-1/n1).
# Values: symmetry m, then exponents n1, n2, n3.
FIGURES: dict[str, tuple[float, float, float, float]] = {
    "disc": (0.0, 1.0, 1.0, 1.0),
    "square": (4.0, 12.0, 12.0, 12.0),
    "triangle": (3.0, 5.0, 18.0, 18.0),
    "star": (5.0, 0.5, 0.8, 0.8),
    "clover": (6.0, 1.0, 4.0, 6.0),
    "cross": (4.0, 0.6, 0.9, 0.9),
    "lens": (2.0, 1.0, 1.2, 1.2),
    "flower": (10.0, 2.0, 6.0, 6.0),
    "pentagon": (5.0, 6.0, 12.0, 12.0),
    "pinwheel": (7.0, 0.5, 1.0, 0.6),
}
# A bird is a union of ellipses in the unit circle, given by centre (right, down), half axes and
# rotation in radians. It looks to the right.
BIRDS: dict[str, tuple[tuple[float, ...], ...]] = {
    "wren": (
        (0.0, 0.1, 0.6, 0.45, 0.0), (0.48, -0.38, 0.3, 0.3, 0.0), (0.8, -0.38, 0.2, 0.07, 0.0),
        (-0.65, -0.3, 0.38, 0.12, 0.7), (0.0, 0.6, 0.06, 0.3, 0.0),
    ),
    "heron": (
        (-0.1, 0.1, 0.55, 0.26, -0.3), (0.38, -0.35, 0.11, 0.45, 0.25), (0.5, -0.78, 0.2, 0.12, 0),
        (0.76, -0.76, 0.22, 0.05, 0.0), (-0.1, 0.6, 0.05, 0.38, 0.0),
    ),
    "duck": (
        (0.0, 0.25, 0.72, 0.36, 0.0), (0.5, 0.0, 0.17, 0.4, 0.0), (0.55, -0.36, 0.26, 0.24, 0.0),
        (0.83, -0.3, 0.17, 0.09, 0.2), (-0.75, 0.08, 0.25, 0.11, 0.6),
    ),
    "gull": (
        (0.0, 0.15, 0.66, 0.24, 0.1), (-0.2, -0.3, 0.17, 0.58, -0.6), (0.6, 0.06, 0.22, 0.19, 0.0),
        (0.84, 0.1, 0.15, 0.06, 0.2), (-0.7, 0.05, 0.28, 0.11, 0.1),
    ),
    "owl": (
        (0.0, 0.28, 0.46, 0.58, 0.0), (0.0, -0.42, 0.42, 0.34, 0.0), (-0.28, -0.76, 0.1, 0.2, -0.3),
        (0.28, -0.76, 0.1, 0.2, 0.3), (0.0, 0.85, 0.3, 0.1, 0.0),
    ),
}  # fmt: skip
TILT = 0.3  # maximum rotation of a bird in radians, either way; figures rotate by any angle
# Number of half waves per radius along two perpendicular axes, then the weight of each wave.
TEXTURES: dict[str, tuple[float, float, float, float]] = {
    "plain": (0.0, 0.0, 0.0, 0.0),
    "striped": (2.5, 0.0, 1.0, 0.0),
    "checked": (2.0, 2.0, 1.0, 1.0),
    "banded": (1.2, 0.0, 1.0, 0.0),
    "dotted": (3.5, 3.5, 1.0, 1.0),
    "rippled": (5.0, 0.0, 1.0, 0.0),
    "woven": (4.5, 1.5, 1.0, 1.0),
    "ribbed": (0.0, 3.5, 0.0, 1.0),
    "barred": (0.0, 1.8, 0.0, 1.0),
    "netted": (5.5, 5.5, 1.0, 1.0),
}
SHAPES = (*FIGURES, *BIRDS)


def outline(
    shape: Tensor,
    texture: Tensor,
    centres: Tensor,
    radii: Tensor,
    size: tuple[int, int],
    rng: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Return each object's coverage of every pixel and its texture, both (B, H, W) in [0, 1].

    Parameters
    ----------
    shape : (B,) int64
        Index of each object's shape in `SHAPES`; either all are figures or all are birds.
    texture : (B,) int64
        Index of each object's texture in `TEXTURES`.
    centres : (B, 2)
        Row and column of each object's centre, as fractions of the image's height and width.
    radii : (B,)
        Radius of each object, as a fraction of the image's shorter side.
    size : pixels
        Height and width of the image.
    rng
        Random generator of rotation, stretch and the phases of the texture.
    """
    number, short = len(shape), min(size)
    birds = bool((shape >= len(FIGURES)).any())
    turn, stretch = torch.rand(2, number, 1, 1, generator=rng)
    # The lower half of the range of `turn` is for birds that look left, the upper half for right.
    side = torch.where(turn < 0.5, -1.0, 1.0) if birds else torch.ones_like(turn)
    turn = TILT * (4 * (turn % 0.5) - 1) if birds else 2 * math.pi * turn
    stretch = 0.85 + 0.3 * stretch
    rows = (torch.arange(size[0]) + 0.5)[None, :, None] - centres[:, 0, None, None] * size[0]
    columns = (torch.arange(size[1]) + 0.5)[None, None, :] - centres[:, 1, None, None] * size[1]
    unit = radii[:, None, None] * short
    u = (rows * turn.cos() + columns * turn.sin()) / unit * stretch
    v = (columns * turn.cos() - rows * turn.sin()) / unit / stretch * side
    cover = _bird(shape - len(FIGURES), u, v, unit) if birds else _figure(shape, u, v, unit)

    f1, f2, w1, w2 = torch.tensor([*TEXTURES.values()])[texture].T[..., None, None]
    phase = 2 * math.pi * torch.rand(2, number, 1, 1, generator=rng)
    one = w1 * (math.pi * f1 * u + phase[0]).sin() + (1 - w1)
    other = w2 * (math.pi * f2 * v + phase[1]).sin() + (1 - w2)
    return cover, (2.5 * one * other + 0.5).clamp(0, 1)


def _figure(figure: Tensor, u: Tensor, v: Tensor, unit: Tensor) -> Tensor:
    """Return a figure's coverage of every pixel; `u` (down) and `v` (right) are in radii."""
    m, n1, n2, n3 = torch.tensor([*FIGURES.values()])[figure].T[..., None, None]
    angle = m * torch.atan2(v, u) / 4
    edge = (angle.cos().abs() ** n2 + angle.sin().abs() ** n3) ** (-1 / n1)
    edge = edge / edge.amax((1, 2), keepdim=True)  # the formula's radii differ between figures
    distance = torch.hypot(u, v)
    cover: Tensor = ((edge - distance) * unit * 0.8 + 0.5).clamp(0, 1)
    return cover


def _bird(bird: Tensor, u: Tensor, v: Tensor, unit: Tensor) -> Tensor:
    """Return a bird's coverage of every pixel, which is the maximum over its ellipses."""
    cover = torch.zeros_like(u)
    for part in torch.tensor([*BIRDS.values()])[bird].unbind(1):
        right, down, long, high, turn = part.T[..., None, None]
        x, y = v - right, u - down
        along, across = x * turn.cos() + y * turn.sin(), y * turn.cos() - x * turn.sin()
        inside = 1 - torch.hypot(along / long, across / high)
        cover = cover.maximum((inside * torch.minimum(long, high) * unit + 0.5).clamp(0, 1))
    return cover
