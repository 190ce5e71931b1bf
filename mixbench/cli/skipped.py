"""What a command could not read: it is named, the rest is answered, and the exit code is 1."""

import click

KEY = "mixbench.skipped"


def tell(what: str) -> None:
    """Name something that cannot be read, and that the command does not depend on."""
    click.echo(f"skipped: {what}", err=True)


def skip(what: str) -> None:
    """Name something that the command cannot read and leaves out of its answer."""
    tell(what)
    if (context := click.get_current_context(silent=True)) is not None:
        context.meta[KEY] = True


def exit_code(code: int | None) -> int | None:
    """Return the exit code of a command: 1 instead of success if it has skipped something."""
    context = click.get_current_context(silent=True)
    return 1 if not code and context is not None and context.meta.get(KEY) else code
