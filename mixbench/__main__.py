"""Entry point: run a command and convert exceptions to error messages and exit codes."""

import sys
import traceback
from contextlib import suppress

import click

from mixbench.cli import main as commands
from mixbench.cli.widths import wrapped
from mixbench.errors import MixbenchError, one_line

NO_FILE = 5  # a file or folder cannot be read or written
BUG = 70  # of mixbench itself; a failed cell has another code
INTERRUPTED = 130


def main() -> None:
    """Run the command line and exit with its exit code."""
    sys.exit(run_command())


def run_command() -> int:
    """Run the command line and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError):  # None if closed; not every stream has it
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
        code = commands(prog_name="mixbench", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except SystemExit:  # click's answer if the process that reads our output has closed the pipe
        code = 0
    except Exception as error:  # noqa: BLE001  # whatever ends the program is told
        code = _told(error)
    return code if isinstance(code, int) else 0


def _told(error: Exception) -> int:
    """Print the error that ended a command, and return the exit code for it."""
    if isinstance(error, BrokenPipeError):  # the process that reads our output has closed the pipe
        sys.stderr.close()
        return 0
    if isinstance(error, MixbenchError):
        click.echo(_shown(f"error: {error}"), err=True)
        return error.exit_code
    if isinstance(error, OSError | UnicodeError):
        click.echo(_shown(f"error: {_sentence(error)}"), err=True)
        return NO_FILE
    traceback.print_exception(error)
    click.echo("error: This is a bug in mixbench: please report it with these lines.", err=True)
    return BUG


def _shown(text: str) -> str:
    """Break lines between words for a terminal; elsewhere they stay as they are."""
    if not sys.stderr.isatty():
        return text
    return "\n".join(wrapped(line, stream=sys.stderr) for line in text.split("\n"))


def _sentence(error: OSError | UnicodeError) -> str:
    """Return which file could not be read or written, and why."""
    if isinstance(error, OSError) and error.filename is not None:
        return one_line(f"{error.filename} cannot be read or written: {error.strerror}.")
    return one_line(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
