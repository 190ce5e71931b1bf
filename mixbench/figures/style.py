"""The style of all figures and charts: colours, fonts, and how files are written."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mixbench.declare import BASELINE

INK, QUIET = "#1c2127", "#5b6570"
DPI = 200  # twice that of a page on a screen
LINE = 11  # height of a line of text, in points
# Colours of methods, told apart by the colour-blind where few are drawn together.
PALETTE = (
    "#0b6bcb", "#c2410c", "#15803d", "#7e22ce", "#0f766e", "#0e7490",
    "#be185d", "#4d7c0f", "#4338ca", "#b91c1c", "#a16207", "#86198f",
)  # fmt: skip
SHAPES = (("o", "-"), ("s", "--"), ("^", ":"), ("D", "-."))  # markers and line styles
SALT = 133  # with it, the methods that most leaderboards have get different colours
FOR_PAPERS = (".png", ".pdf")
OPTIONS = {  # of the files' writers
    ".pdf": {"metadata": {"CreationDate": None}},
    ".webp": {"pil_kwargs": {"quality": 85, "method": 6}},
}
# TrueType fonts: many publishers refuse the fonts of type 3 that matplotlib embeds by default.
FONTS: Any = {"pdf.fonttype": 42, "ps.fonttype": 42, "svg.fonttype": "none"}


def method_of(label: str) -> str:
    """Return the name of a row's method, without its changed parameters."""
    return re.split(r"[\[ ]", label)[0]


def number_of(label: str) -> int | None:
    """Return the place of a method's colour in the palette; None for the baseline.

    Rows of one method with other parameters share its colour.
    """
    method = method_of(label)
    if method == BASELINE:
        return None
    return crc32(f"{SALT}{method}".encode()) % len(PALETTE)


def colour(label: str) -> str:
    """Return the colour of a method, the same in all figures; grey for the baseline."""
    number = number_of(label)
    return QUIET if number is None else PALETTE[number]


def shapes(labels: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Return the marker and line style of each row, which tell rows of one colour apart."""
    taken: Counter[int | None] = Counter()
    found = {}
    for label in sorted(labels):
        number = number_of(label)
        found[label] = SHAPES[taken[number] % len(SHAPES)]
        taken[number] += 1
    return found


def label_ends(axes: Axes, x: float, ends: Iterable[tuple[str, float]]) -> None:
    """Write names at the ends of curves, without overlap.

    Parameters
    ----------
    axes
        The axes, with their final limits.
    x
        Where all curves end.
    ends
        Name of each curve, and the value at its end.
    """
    low, high = axes.get_ylim()
    box = axes.get_window_extent()
    inches = box.height / axes.figure.dpi
    least = (high - low) * LINE / 72 / inches
    at = -float("inf")
    for name, value in sorted(ends, key=lambda end: end[1]):
        at = max(value, at + least)
        axes.annotate(
            name, (x, at), (8, 0), textcoords="offset points", va="center", fontsize=8,
            color=colour(name), annotation_clip=False,
        )  # fmt: skip


def label_below(axes: Axes) -> None:
    """Put the legend of axes below them, where it hides no data."""
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), frameon=False, fontsize=8)


def save(figure: Figure, path: Path, suffixes: Sequence[str] = FOR_PAPERS) -> list[Path]:
    """Write a figure to files of this path with these suffixes; return their paths.

    Files of the same figure are the same.
    """
    FigureCanvasAgg(figure)
    files = [path.with_name(f"{path.name}{suffix}") for suffix in suffixes]
    with rc_context(FONTS):
        for file in files:
            options: Any = OPTIONS.get(file.suffix, {})
            figure.savefig(file, dpi=DPI, **options)
    return files
