"""The command line: one module per command.

Slow imports happen inside the commands, so that `mixbench --help` is fast.
"""

import click

import mixbench
from mixbench.cli.cache import cache
from mixbench.cli.cancel import cancel
from mixbench.cli.check import check
from mixbench.cli.compare import compare
from mixbench.cli.completion import completion
from mixbench.cli.data import data
from mixbench.cli.doctor import doctor
from mixbench.cli.export import export
from mixbench.cli.figure import figure
from mixbench.cli.info import info
from mixbench.cli.leaderboard import leaderboard
from mixbench.cli.list import list_units
from mixbench.cli.logs import logs
from mixbench.cli.new import new
from mixbench.cli.plan import plan
from mixbench.cli.preview import preview
from mixbench.cli.report import report
from mixbench.cli.run import run
from mixbench.cli.score import score
from mixbench.cli.site import site
from mixbench.cli.skipped import exit_code
from mixbench.cli.status import status
from mixbench.cli.submit import submit
from mixbench.cli.verify import verify


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(mixbench.__version__, prog_name="mixbench")
def main() -> None:
    """Benchmark mixing augmentations: measure their gain on each task, and their cost.

    \b
    mixbench run -m none,mixup -t digits --seeds 3    train, evaluate and rank methods
    mixbench list methods                             list the available methods
    mixbench report                                   print the leaderboards of the store
    mixbench data get cifar10                         download the data of a task
    """  # noqa: D301  # click's marker: do not rewrap these lines


main.result_callback()(exit_code)
COMMANDS = (
    *(run, plan, list_units, info, report, figure, compare, score),
    *(leaderboard, site, submit, verify),
    *(check, preview, new, export),
    *(status, logs, cancel, cache, data, doctor, completion),
)
for command in COMMANDS:
    main.add_command(command)
