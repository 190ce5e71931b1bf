"""Entry point: run a command and convert exceptions to error messages and exit codes."""

import sys

import click

from mixbench.cli import main as commands
from mixbench.errors import DamagedStage, MixbenchError

INTERRUPTED = 130


def main() -> None:
    """Run the command line and exit with its exit code."""
    sys.exit(run_command())


def run_command() -> int:
    """Run the command line and return its exit code."""
    try:
        code = commands(prog_name="mixbench", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except MixbenchError as error:
        click.echo(f"error: {error}", err=True)
        code = error.exit_code
        if isinstance(error, DamagedStage):
            from mixbench.storage.store import Store

            Store(error.root).quarantine(error.key)  # otherwise the next run would use it again
    except (click.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except BrokenPipeError:  # the process that reads our output has closed the pipe
        sys.stderr.close()
        code = 0
    return code if isinstance(code, int) else 0


if __name__ == "__main__":
    main()
