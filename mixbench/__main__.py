"""The program's entry: run a command, and turn what went wrong into a sentence and a code."""

import sys

import click

from mixbench.cli import main as commands
from mixbench.errors import MixbenchError

INTERRUPTED = 130


def main() -> None:
    """Run the command line and leave with its exit code."""
    sys.exit(_run())


def _run() -> int:
    try:
        code = commands(prog_name="mixbench", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except MixbenchError as error:
        click.echo(f"error: {error}", err=True)
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except BrokenPipeError:  # the reader of our output has left
        sys.stderr.close()
        code = 0
    return code if isinstance(code, int) else 0


if __name__ == "__main__":
    main()
