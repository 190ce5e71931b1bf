"""Images as terminal text: each character shows two pixels, one above the other, in colour."""

from collections.abc import Sequence

import torch
from rich.color import Color
from rich.console import Group, RenderableType
from rich.style import Style
from rich.table import Table
from rich.text import Text
from torch import Tensor
from torch.nn import functional as F

from mixbench.figures.preview import Row

NARROWEST, WIDEST = 8, 32  # minimum and maximum characters per line of one image


def in_text(rows: Sequence[Row], width: int) -> RenderableType:
    """Return the rows as text for a terminal that is `width` characters wide."""
    columns = len(rows[0].images)
    side = min(max(width // columns - 2, NARROWEST), WIDEST) // 2 * 2
    tables: list[RenderableType] = []
    for row in rows:
        table = Table.grid(padding=(0, 2, 1, 0))
        cells = [Group(_picture(image, side), Text(text, style="dim"))
                 for image, text in zip(row.images, row.texts, strict=True)]  # fmt: skip
        table.add_row(*cells)
        tables += [Text(row.name, style="bold"), table]
    return Group(*tables)


def _picture(image: Tensor, side: int) -> Text:
    """Return one image, (C, H, W) in [0, 1], as lines of half-block characters."""
    height, width = image.shape[-2:]
    size = round(side * height / width / 2) * 2, side
    small = F.interpolate(image[None].float(), size, mode="bilinear", antialias=True)[0]
    levels = (255 * small.clamp(0, 1)).round().to(torch.uint8).expand(3, -1, -1)
    colours = levels.permute(1, 2, 0).tolist()
    text = Text(no_wrap=True)
    for above, below in zip(colours[::2], colours[1::2], strict=True):
        for upper, lower in zip(above, below, strict=True):
            text.append("▀", Style(color=Color.from_rgb(*upper), bgcolor=Color.from_rgb(*lower)))
        text.append("\n")
    return text
