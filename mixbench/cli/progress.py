"""Progress display of long operations: a spinner and a progress bar."""

from collections.abc import Iterator
from contextlib import contextmanager

import click

from mixbench.datasets.archives import Tell


@contextmanager
def spinner(text: str) -> Iterator[None]:
    """Show a spinner while the block runs; print a line if stderr is not a terminal."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        click.echo(text, err=True)
        yield
        return
    with console.status(text):
        yield


@contextmanager
def bar(text: str, unit: str = "bytes") -> Iterator[Tell]:
    """Show a progress bar while the block runs; print a line if stderr is not a terminal.

    Parameters
    ----------
    text
        Description shown before the bar.
    unit
        Unit of the progress: "bytes" formats sizes; any other unit shows counts.

    Yields
    ------
    tell : callable
        Call it with the amount done and the total (0 if unknown).
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    done = DownloadColumn() if unit == "bytes" else MofNCompleteColumn()
    columns = (TextColumn(text), BarColumn(), done, TimeRemainingColumn())
    console = Console(stderr=True)
    if not console.is_terminal:
        click.echo(text, err=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        shown = progress.add_task(text, total=None)
        yield lambda done, of: progress.update(shown, completed=done, total=of or None)
