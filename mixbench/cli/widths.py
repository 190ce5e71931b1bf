"""Texts that fit into the terminal, or into 100 columns where there is none."""

import shutil
import sys
import textwrap
from typing import TextIO

WITHOUT_TERMINAL = 100  # columns


def columns(stream: TextIO | None = None) -> int:
    """Return the number of columns that a line may have in a stream, by default the output."""
    if not (stream or sys.stdout).isatty():
        return WITHOUT_TERMINAL
    return shutil.get_terminal_size((WITHOUT_TERMINAL, 24)).columns


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
