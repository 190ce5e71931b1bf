"""``mixbench report``: print leaderboards and costs, or draw figures, from finished cells."""

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict, Unpack, get_args

import click

from mixbench.cli.options import QUICK, as_json, existing_store, names, store_option
from mixbench.cli.skipped import skip
from mixbench.cli.widths import columns
from mixbench.errors import UnknownName, UsageError

if TYPE_CHECKING:
    import pandas as pd

    from mixbench.records.schema import Record
    from mixbench.storage.store import Store

Form = Literal["table", "markdown", "latex", "csv", "json"]


class ReportOptions(TypedDict):
    """Values of the options of ``mixbench report``."""

    methods: tuple[str, ...]
    tasks: tuple[str, ...]
    form: Form
    figures: bool
    costs: bool
    suite: str | None
    protocol: str | None
    as_json: bool
    store_path: Path


@click.command()
@click.option("-m", "--method", "methods", multiple=True, help="Show only these methods.")
@click.option("-t", "--task", "tasks", multiple=True, help="Show only these tasks.")
@click.option(
    "--format",
    "form",
    default="table",
    type=click.Choice(get_args(Form)),
)
@click.option("--figures", is_flag=True, help="Draw figures; print only their paths.")
@click.option("--costs", is_flag=True, help="Print what each method costs instead of its results.")
@click.option("--suite", metavar="NAME", help="Print a suite's table in the layout of its paper.")
@click.option(
    "--protocol", type=click.Choice([QUICK]), help="With --suite: show its small version."
)
@as_json
@store_option
def report(**options: Unpack[ReportOptions]) -> None:
    """Print the leaderboards of the store or the table of a suite, or draw figures."""
    from mixbench.leaderboard import formats as tables
    from mixbench.leaderboard.store_report import read_records
    from mixbench.leaderboard.table import leaderboards

    form = "json" if options["as_json"] else options["form"]
    _check_suite(options)
    if options["suite"] is not None:
        table = _of_suite(options["suite"], options, form)
        click.echo(tables.text_of(table, form, columns()), nl=False)
        return
    store = existing_store(options["store_path"])
    wanted = names(options["methods"]), names(options["tasks"])
    records = recorded(read_records(store, artifacts=options["figures"], skip=skip), *wanted)
    if options["figures"]:
        from mixbench.figures.cells import draw_cells

        for path in draw_cells(store, records):
            click.echo(path)
        return
    if options["costs"]:
        click.echo(tables.text_of(_costs(records, form), form, columns()), nl=False)
        return
    boards = leaderboards(records)
    if form == "table":
        for board in boards:
            tables.to_terminal(board)
    else:
        writers = {
            "markdown": tables.to_markdown,
            "latex": tables.to_latex,
            "csv": tables.to_csv,
            "json": tables.to_json,
        }
        click.echo(writers[form](boards), nl=False)
    _tell_missing(records, store)
    if options["methods"]:
        click.echo("p-values are corrected for the comparisons of these methods only.", err=True)


def _check_suite(options: ReportOptions) -> None:
    """Check that options which concern suites are combined with what they need."""
    if options["protocol"] and options["suite"] is None:
        raise UsageError("--protocol shows a part of a suite: add --suite NAME, or leave it out.")
    if options["figures"] and options["suite"] is not None:
        raise UsageError("--figures draws the cells of the store: leave out --suite.")


def _tell_missing(records: "Sequence[Record]", store: "Store") -> None:
    """Say how many cells have no result, or that there are none."""
    if failed := sum(record.status != "ok" for record in records):
        said = "1 cell has" if failed == 1 else f"{failed} cells have"
        click.echo(f"{said} no result; see `mixbench status --stages`.", err=True)
    elif not records:
        click.echo(f"No cell in {store.root} is finished yet; see `mixbench status`.", err=True)


def _costs(records: "Sequence[Record]", form: Form) -> "pd.DataFrame":
    """Return what each method costs: as texts for people, as numbers for programs."""
    from mixbench.leaderboard.costs import costs
    from mixbench.leaderboard.formats import display_costs

    table = costs(records)
    return table if form in {"csv", "json"} else display_costs(table)


def _of_suite(name: str, options: ReportOptions, form: Form) -> "pd.DataFrame":
    """Return a suite's table or costs from the records of the store and the suite's folder."""
    from mixbench.leaderboard.admission import Asked
    from mixbench.leaderboard.build import read_answers
    from mixbench.leaderboard.grouping import without_rescored
    from mixbench.leaderboard.layout import laid_out
    from mixbench.leaderboard.store_report import read_records
    from mixbench.leaderboard.suite import cells_asked, folder_of
    from mixbench.leaderboard.table import DATA_NOTES
    from mixbench.storage.store import Store

    folder = folder_of(name)
    answered = read_answers(folder)
    quick = options["protocol"] == QUICK
    suite = answered.suite.quickly() if quick else answered.suite
    asked = Asked(tuple(cells_asked(folder, suite)))
    found = [*answered.records.values()]
    if options["store_path"].is_dir():
        found += read_records(Store(options["store_path"]), skip=skip)
    once: dict[Hashable, Record] = {}  # the store may have results of other code
    for record in without_rescored(filter(asked.cell_of, found)):
        which = asked.identity(record), record.data.digest
        if record.status == "ok" or which not in once:
            once[which] = record
    records = suite.compared([asked.as_declared(record) for record in once.values()])
    records = recorded(records, names(options["methods"]), names(options["tasks"]))
    for note in sorted({DATA_NOTES[record.data.origin] for record in records} - {""}):
        click.echo(note, err=True)
    if options["costs"]:
        return _costs(records, form)
    return laid_out(answered.suite, records, beside=not quick)


def recorded(
    records: "Sequence[Record]", methods: Sequence[str], tasks: Sequence[str]
) -> "list[Record]":
    """Return the records of the given methods and tasks.

    Parameters
    ----------
    records
        Records to filter.
    methods
        Names of the methods to keep; empty keeps every method.
    tasks
        Names of the tasks to keep; empty keeps every task.

    Raises
    ------
    UnknownName
        If a given method or task has no record.
    """
    for kind, asked, known in (
        ("recorded method", methods, {r.method.name for r in records}),
        ("recorded task", tasks, {r.task.name for r in records}),
    ):
        for name in asked:
            if name not in known:
                raise UnknownName(kind, name, known)
    return [
        record
        for record in records
        if (not methods or record.method.name in methods)
        and (not tasks or record.task.name in tasks)
    ]
