"""``mixbench run``: run the missing stages and rank the finished cells."""

import json
import shlex
import signal
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

from mixbench.cli.engine_options import EngineOptions, engine_options, runs_of
from mixbench.cli.options import (
    CellOptions,
    as_json,
    asked_cells,
    cell_options,
    names,
    rule_of,
    store_option,
)
from mixbench.cli.plan import counted, data_lines, show_plan
from mixbench.cli.request_file import written_out
from mixbench.cli.skipped import tell
from mixbench.cli.widths import wrapped
from mixbench.errors import DataError, UsageError, naming_full_disk

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mixbench.cli.engine_options import Run
    from mixbench.engines.engine import Engine
    from mixbench.engines.progress import Show
    from mixbench.engines.run_state import RunState
    from mixbench.leaderboard.ranks import Rule
    from mixbench.plan.graph import Plan
    from mixbench.records.schema import Record
    from mixbench.storage.notes import RunNote
    from mixbench.storage.store import Store
    from mixbench.trackers import Tracking

INTERRUPTED = 130


class RunOptions(CellOptions, EngineOptions):
    """Values of the options that select cells, the engine and its resources, and trackers."""

    log: tuple[str, ...]


@click.command()
@cell_options
@store_option
@click.option("--fresh", is_flag=True, help="Recompute all stages, even if they are stored.")
@click.option(
    "--allow-duplicates",
    is_flag=True,
    help="Run although your own data has the same image for training and testing.",
)
@click.option("--dry-run", is_flag=True, help="Show the plan and exit.")
@click.option("--detach", is_flag=True, help="Submit this command as a SLURM job and return.")
@click.option(
    "--log", multiple=True, metavar="csv,tensorboard,wandb",
    help="Log finished cells to CSV files, TensorBoard or Weights & Biases.",
)  # fmt: skip
@engine_options
@as_json
def run(
    *,
    store_path: Path,
    fresh: bool,
    allow_duplicates: bool,
    dry_run: bool,
    detach: bool,
    as_json: bool,
    **options: Unpack[RunOptions],
) -> int:
    """Run the missing stages and rank the finished cells.

    Run the same command again to continue an interrupted run.
    """
    from mixbench.engines.preflight import preflight
    from mixbench.plan.graph import plan as make_plan
    from mixbench.storage.store import Store
    from mixbench.trackers import Tracking, check

    kinds = names(options["log"])
    check(kinds)
    plan = make_plan(asked_cells(options))
    store = Store(store_path)
    threads = max(cell.recipe.threads for cell in plan.cells)
    tasks = {stage.identity.task.name for stage in plan.stages.values()}
    runs = runs_of(options, threads, tasks)
    how = runs[0]
    _check_shares(plan, runs)
    _check_detach(how, detach=detach)
    if dry_run:
        code = show_plan(plan, store, as_json=as_json)
        if how.slurm is not None and not as_json:
            _show_first_job(plan, store, how)
        return code
    with naming_full_disk(store.root):
        store.open()
        _check_duplicates(plan, store, allow=allow_duplicates)
        preflight(plan, store, partial(click.echo, err=True), fresh=fresh)
        if fresh:
            _forget(plan, store)
        if detach:
            return _detach(store, how)
        tracking = Tracking(store, kinds)
        return _run(plan, store, runs, rule_of(options["suite"]), tracking, as_json=as_json)


def _show_first_job(plan: "Plan", store: "Store", how: "Run") -> None:
    """Print the job that is submitted first, as shell commands."""
    from mixbench.engines.slurm import SlurmEngine

    engine = how.engine(store)
    assert isinstance(engine, SlurmEngine)
    missing = (key for key in plan.stages if not store.finished(key))
    if (key := next(missing, None)) is not None:
        kind = plan.stages[key].kind
        click.echo(f"\nThe first job:\n{engine.job(key, kind, store.log(key))}")


def _detach(store: "Store", how: "Run") -> int:
    """Submit the command as a SLURM job, without --fresh because SLURM may restart the job."""
    from mixbench.engines.slurm import submit_launcher

    assert how.slurm is not None
    arguments = [a for a in sys.argv[1:] if a not in {"--detach", "--fresh"}]
    number = submit_launcher(store, how.slurm, arguments)
    click.echo(
        f"Job {number} is submitted; its log is {store.runs / f'launcher-{number}.txt'}\n"
        "Follow it with `mixbench status` and `mixbench logs -f CELL`; "
        "stop it with `mixbench cancel --all`."
    )
    return 0


def _check_detach(how: "Run", *, detach: bool) -> None:
    """Check that the launcher can run as a job of the engine."""
    if detach and how.slurm is None:
        raise UsageError(
            f"--detach needs --engine slurm, whose jobs outlive this shell (got {how.name}). With "
            "another engine, run `nohup mixbench run ... &`, or use a tmux session."
        )


def _check_shares(plan: "Plan", runs: "Sequence[Run]") -> None:
    """Check that the processes of each training can split its batch evenly."""
    processes = {task: run.options.processes for run in runs for task in run.limits.tasks or ()}
    for stage in plan.stages.values():
        if stage.kind != "train":
            continue
        name, recipe = stage.identity.task.name, stage.run.recipe
        size, parts = recipe.batch_size, recipe.accumulate
        whole = "batch size"
        if recipe.mix_mode == "half":
            size, whole = (size + 1) // 2, "mixed half of the batch"
        if size % (processes[name] * parts):
            option = "--gpus-per-cell times nodes" + (" times accumulate" if parts > 1 else "")
            raise UsageError(
                f"{option} must divide the {whole} of {name}, {size} (got "
                f"{processes[name] * parts}): "
                f"choose another number, or give --set {name}.batch_size=N."
            )


def _check_duplicates(plan: "Plan", store: "Store", *, allow: bool) -> None:
    """Check that the user's own data has no image for both training and testing."""
    from mixbench.datasets.digests import cached_digests, equal_files, repeated_files
    from mixbench.datasets.locate import data_of, digest_cache
    from mixbench.datasets.survey import images_of
    from mixbench.storage.files import write_bytes

    # Nobody vouches for such data; comparing the images of other data would take hours.
    own = {c.data.state: c for c in plan.cells if c.data.origin in {"own", "modified"}}
    for cell in own.values():
        assert cell.data.folder is not None
        note = store.data_note(cell.data.state, "duplicates")
        if note.exists() and (allow or note.read_text() == "0"):
            continue
        data = data_of(cell.task.card, cell.task.parameters)
        train, test = (images_of(data, cell.data.folder, part) for part in ("train", "test"))
        with cached_digests(digest_cache()) as digest:
            equal, where = equal_files(train, test, digest), "for both training and testing"
            if not (train or test):  # test images will be drawn
                every = images_of(data, cell.data.folder, "test", shared=True)
                equal, where = repeated_files(every, digest), "twice, of which some are for testing"
        if equal:
            text = f"{cell.data.folder} has {counted('image', len(equal))} {where}, such as "
            text += f"{equal[0][0]} and {equal[0][1]}"
            if not allow:
                raise DataError(f"{text}: remove one of each pair, or pass --allow-duplicates.")
            click.echo(f"{text}.", err=True)
        write_bytes(note, str(len(equal)).encode())


def _forget(plan: "Plan", store: "Store") -> None:
    """Remove the plan's stages from the store; raise if a process is running one of them."""
    busy = [plan.stages[key].label for key in plan.stages if store.running(key)]
    if busy:
        raise UsageError(f"--fresh: another process is running {busy[0]}; stop it first.")
    for key in plan.stages:
        store.forget(key)


def _run(
    plan: "Plan",
    store: "Store",
    runs: "Sequence[Run]",
    rule: "Rule",
    tracking: "Tracking",
    *,
    as_json: bool,
) -> int:
    """Run the plan, write the records and print the leaderboards; return the exit code."""
    from rich.console import Console

    from mixbench.engines.progress import Show
    from mixbench.engines.run_state import RunState
    from mixbench.records.writer import SettledCell, record_path, write_record

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # handle SIGTERM like Ctrl-C
    command = ["mixbench", *written_out(sys.argv[1:], click.get_current_context())]
    records: list[Record] = []
    with Show(Console(stderr=True)) as show:
        how = runs[0]
        engine = how.engine(store)
        note = store.note_run(_noted(plan, command, how.name))
        state = RunState(plan, store, engine.num_slots, engine.gpus, how.nodes)

        def on_cell(number: int) -> None:
            outcomes, ran = state.outcomes(number), state.ran_for(number)
            settled = SettledCell(plan, store, number, outcomes, ran)
            records.append(write_record(settled, _as_recorded(command)))
            tracking.add(record_path(store, plan, number))

        try:
            # From here on, `cache gc` keeps what the run counts as cached.
            with store.launcher_lease(note).held(lambda: None):
                _mark_cached(state, show)
                _schedule(state, engine, runs, show, on_cell)
        except KeyboardInterrupt:
            finished = state.count("done", "cached")
            left = "the running stages continue" if engine.outlives else _left(state)
            show.notice(
                f"Stopped: {finished} of {len(state.states)} stages are finished; {left}. Continue "
                f"with:\n  {shlex.join(command)}"
            )
            return INTERRUPTED
    for line in tracking.close():
        click.echo(line, err=True)
    return _conclude(records, store, rule, as_json=as_json)


def _mark_cached(state: "RunState", show: "Show") -> None:
    """Find out which stages are finished, and show how many, and what data the run reads."""
    from mixbench.engines.run_state import mark_cached

    mark_cached(state, show.notice)
    show.notice(_headline(state))
    for line in data_lines(state.plan):
        show.notice(line)


def _schedule(
    state: "RunState",
    engine: "Engine",
    runs: "Sequence[Run]",
    show: "Show",
    on_cell: "Callable[[int], None]",
) -> None:
    """Run all stages; tasks with another number of GPUs per cell run one after the other.

    Parameters
    ----------
    engine
        Engine of the first run.
    """
    from mixbench.engines.scheduler import Scheduler

    first: Engine | None = engine
    while not state.complete:
        for run in runs:
            on = first or run.engine(state.store)
            Scheduler(state, on, show, on_cell, run.options, run.limits).run()
            first = None


def _left(state: "RunState") -> str:
    """Return how many of the stages that were stopped have left something to continue from."""
    stopped = [*state.running]
    kept = sum(map(state.store.has_checkpoint, stopped))
    return f"{kept} of {counted('running stage', len(stopped))} left a checkpoint"


def _as_recorded(command: list[str]) -> list[str]:
    """Return a command without --store, whose path is specific to this machine."""
    places = {i for i, word in enumerate(command) if word == "--store"}
    places |= {i + 1 for i in places}
    kept = (word for i, word in enumerate(command) if i not in places)
    return [word for word in kept if not word.startswith("--store=")]


def _conclude(records: list["Record"], store: "Store", rule: "Rule", *, as_json: bool) -> int:
    """Print the leaderboards, the file locations and the failed cells; return the exit code."""
    from mixbench.leaderboard.formats import to_json, to_terminal
    from mixbench.leaderboard.store_report import read_records, write_reports
    from mixbench.leaderboard.table import leaderboards

    boards = leaderboards(records, rule=rule)
    written = write_reports(store, read_records(store, artifacts=False, skip=tell))
    if as_json:
        cells = [{"cell": r.cell, "status": r.status, "reason": r.reason} for r in records]
        click.echo(json.dumps({"cells": cells, "leaderboards": json.loads(to_json(boards))}))
    else:
        for board in boards:
            to_terminal(board)
        click.echo(f"\nrecords       {store.records}\nleaderboards  {written}")
    failed = [record for record in records if record.status != "ok"]
    for record in failed:
        log = f"; log: {store.root / record.log}" if record.log else ""
        click.echo(f"{record.status}: {record.cell}: {record.reason}{log}", err=True)
    return 1 if failed else 0


def _headline(state: "RunState") -> str:
    """Return the numbers of cells, and of stages that are cached, to run and not needed."""
    cells = state.plan.cells
    product = " x ".join((
        counted("method", len({cell.method.label for cell in cells})),
        counted("task", len({cell.task.label for cell in cells})),
        counted("seed", len({cell.seed for cell in cells})),
    ))
    labels = {(cell.method.label, cell.task.label, cell.seed) for cell in cells}
    sign = "=" if len(labels) == len(cells) else "in"  # two files may have one name
    todo = state.count("waiting")
    cached, needless = len(state.states) - todo, len(state.plan.stages) - len(state.states)
    return wrapped(
        f"{product} {sign} {counted('cell', len(cells))}, {len(state.plan.stages)} stages: "
        f"{cached} cached, {todo} to run in {counted('slot', state.num_slots)}"
        f"{f', {needless} not needed' if needless else ''}   store {state.store.root}",
        2,
    )


def _noted(plan: "Plan", command: list[str], engine: str) -> "RunNote":
    """Return the plan in the form that `status` and `logs` read in other shells."""
    from mixbench.storage.files import now
    from mixbench.storage.notes import CellNote, RunNote, StageNote

    cells = [
        CellNote(
            cell.label,
            tuple(StageNote(plan.stages[key].kind, key) for key in plan.rests_on(chain[-1])),
        )
        for cell, chain in zip(plan.cells, plan.chains, strict=True)
    ]
    return RunNote(now(), tuple(command), engine, tuple(cells))
