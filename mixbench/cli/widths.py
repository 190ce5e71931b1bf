"""Texts that fit into the terminal, or into 100 columns where there is none."""

import shutil
import sys
import textwrap

WITHOUT_TERMINAL = 100  # columns


def columns() -> int:
    """Return the number of columns that a line of output may have."""
    if not sys.stdout.isatty():
        return WITHOUT_TERMINAL
    return shutil.get_terminal_size((WITHOUT_TERMINAL, 24)).columns


def wrapped(text: str, indent: int = 0, first: str = "") -> str:
    """Break a text into lines between words; later lines are indented.

    Parameters
    ----------
    text
        The text.
    indent
        Number of spaces before every line but the first.
    first
        What the first line begins with.
    """
    return textwrap.fill(
        text, columns(), initial_indent=first, subsequent_indent=" " * indent,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
