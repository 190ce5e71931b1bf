"""Texts that fit into the terminal, or into 100 columns where there is none."""

import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import Any, TextIO

WITHOUT_TERMINAL = 100  # columns
NARROWEST = 10  # columns of the widest column of a table, however narrow the terminal is


def columns(stream: TextIO | None = None) -> int:
    """Return the number of columns that a line may have in a stream, by default the output."""
    if not (stream or sys.stdout).isatty():
        return WITHOUT_TERMINAL
    return shutil.get_terminal_size((WITHOUT_TERMINAL, 24)).columns


def table(rows: Sequence[Sequence[object]], head: Sequence[str], wide: int, **options: Any) -> str:
    """Return a table; texts of the column `wide` are broken where it would be too wide.

    Parameters
    ----------
    rows
        The cells of each row.
    head
        The headings; they may have several lines.
    wide
        Number of the column with the longest texts.
    options
        Further options of `tabulate.tabulate`.
    """
    from tabulate import tabulate

    others = 0
    for number, heading in enumerate(head):
        if number != wide:  # tabulate puts two spaces between columns, and two beside headings
            widest = max((len(str(row[number])) for row in rows), default=0)
            others += max(widest + 2, max(map(len, heading.split("\n"))) + 4)
    widths = [max(NARROWEST, columns() - others) if n == wide else None for n in range(len(head))]
    return str(tabulate(rows, head, maxcolwidths=widths, **options))


def wrapped(text: str, indent: int = 0, first: str = "", stream: TextIO | None = None) -> str:
    """Break a text into lines between words; later lines are indented.

    Parameters
    ----------
    text
        The text.
    indent
        Number of spaces before every line but the first.
    first
        What the first line begins with.
    stream
        Where the text will be written; by default, to the output.
    """
    return textwrap.fill(
        text, columns(stream), initial_indent=first, subsequent_indent=" " * indent,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
