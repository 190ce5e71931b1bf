"""``mixbench plan``: show what a run would do."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

from mixbench.cli.options import (
    CellOptions,
    as_json,
    asked_cells,
    cell_options,
    rule_of,
    store_option,
)
from mixbench.cli.stage_table import stage_table
from mixbench.cli.widths import table, wrapped
from mixbench.errors import Damaged

if TYPE_CHECKING:
    from mixbench.datasets.locate import DataSource
    from mixbench.plan.graph import Plan
    from mixbench.plan.workload import Workload
    from mixbench.records.schema import Record
    from mixbench.storage.store import Store


@click.command()
@cell_options
@store_option
@click.option(
    "--calibrate", is_flag=True,
    help="Measure 30 steps of each network on this machine, and estimate the hours.",
)  # fmt: skip
@click.option("--stages", is_flag=True, help="Show each stage instead of counts.")
@as_json
def plan(
    *, store_path: Path, calibrate: bool, stages: bool, as_json: bool,
    **options: Unpack[CellOptions],
) -> int:  # fmt: skip
    """Show what a run would do: stages to run, cached ones, and the images that they process.

    The data may be missing.
    """
    from mixbench.plan.graph import plan as make_plan
    from mixbench.storage.store import Store

    plan = make_plan(asked_cells(options, without_data=True), without_data=True)
    code = show_plan(plan, Store(store_path), as_json=as_json, stages=stages)
    if not as_json:
        _show_work(plan, calibrate=calibrate)
        for line in _power_lines(plan, Store(store_path), options["suite"]):
            click.echo(wrapped(line, 2))
    return code


def _power_lines(plan: "Plan", store: "Store", suite: str | None) -> Iterator[str]:
    """Yield the effect that each table will be able to show, if the store has runs of `none`."""
    if len({cell.seed for cell in plan.cells}) == 1:  # spares the import of numpy
        return
    from mixbench.declare import BASELINE
    from mixbench.leaderboard.ranks import expected_effect
    from mixbench.leaderboard.statistics import LEAST_SEEDS

    tables: dict[str, list[int]] = {}
    for number, cell in enumerate(plan.cells):
        key = [cell.task.label, cell.model, cell.recipe.values(), cell.data.digest]
        tables.setdefault(json.dumps(key, default=str), []).append(number)
    rule = rule_of(suite)
    for numbers in tables.values():
        cells = [plan.cells[number] for number in numbers]
        seeds, first = len({cell.seed for cell in cells}), cells[0]
        pairs = len(rule.pairs(list(dict.fromkeys(cell.method.label for cell in cells))))
        if seeds < LEAST_SEEDS or not pairs:
            continue
        pilot = dict(_finished(plan, store, numbers, BASELINE))
        text = f"run {LEAST_SEEDS} seeds of {BASELINE} first to see it"
        if len(pilot) >= LEAST_SEEDS:
            least = expected_effect(pilot, seeds, rule.alpha / pairs)
            unit = next(iter(pilot.values())).primary.unit
            told = "points" if unit == "%" else unit
            text = "unknown, because nothing varies" if least is None else f"{least:.2g} {told}"
            text += f" ({len(pilot)} seeds of {BASELINE} in the store; leaves out that methods "
            text += "differ in which images they find hard)"
        yield (
            f"minimum detectable effect of {first.task.label}, {first.model}, {first.protocol} "
            f"with {seeds} seeds and {counted('comparison', pairs)}: {text}"
        )


def _finished(
    plan: "Plan", store: "Store", numbers: Sequence[int], method: str
) -> "Iterator[tuple[int, Record]]":
    """Yield the seeds and records of a method's cells that the current code has finished."""
    from mixbench.records.writer import current_record

    for number in (one for one in numbers if plan.cells[one].method.label == method):
        with suppress(Damaged):
            record = current_record(store, plan, number)
            if record is not None and record.status == "ok":
                yield record.seed, record


def _show_work(plan: "Plan", *, calibrate: bool) -> None:
    """Print the images that the stages process, by task and model, and their estimated hours."""
    from mixbench.plan.workload import workloads

    head = ["task", "model", "trainings", "images\ntrained", "searched\n(at most)"]
    unit = _unit() if calibrate else ""
    head += ["predicted", *([f"{unit}-hours"] if calibrate else [])]
    rows, total = [], 0.0
    for (task, model), work in workloads(plan).items():
        numbers = [f"{n:,}" for n in (work.trained, work.searched, work.predicted)]
        if calibrate and work.known:
            hours = _hours(work, unit)
            total += hours or 0.0
            numbers.append("?" if hours is None else f"{hours:,.3g}")
        shown = numbers if work.known else ["?"] * (len(head) - 3)
        rows.append([task, model, work.trainings, *shown])
    align = ("left", "left", *["right"] * (len(head) - 2))
    click.echo(f"\n{table(rows, head, 1, disable_numparse=True, colalign=align)}")
    if calibrate:
        known = "" if all(row[-1] != "?" for row in rows) else " of the rows without ?"
        click.echo(f"{total:,.3g} {head[-1]} for all stages{known}, cached ones included")


def _unit() -> str:
    import torch

    return "GPU" if torch.cuda.is_available() else "CPU"


def _hours(work: "Workload", unit: str) -> float | None:
    """Return the hours that some work takes on this machine, of a GPU or of all cores together."""
    import torch

    from mixbench.worker.calibration import image_times

    cuda = unit == "GPU"
    device = torch.device("cuda" if cuda else "cpu")
    times = image_times(work.example, device, searches=work.searched > 0)
    if times is None:
        return None
    seconds = work.trained * times.train_s
    seconds += work.searched * times.search_s + work.predicted * times.predict_s
    return seconds / 3600 * (1 if cuda else torch.get_num_threads())


def show_plan(plan: "Plan", store: "Store", *, as_json: bool, stages: bool = False) -> int:
    """Print what is cached and what would run, as counts or by stage; return the exit code."""
    uses = Counter(key for chain in plan.chains for key in plan.rests_on(chain[-1]))
    rows = [
        {
            "stage": stage.kind,
            "cell": stage.label,
            "key": key,
            "state": "cached" if store.finished(key) else "to run",
            "cells": uses[key],
        }
        for key, stage in plan.stages.items()
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return 0
    if stages:
        for row in rows:
            shared = f", shared by {row['cells']} cells" if int(str(row["cells"])) > 1 else ""
            click.echo(f"{row['state']:7} {row['stage']:8} {row['cell']}{shared}")
    else:
        counted_rows = ((str(row["cell"]), str(row["state"])) for row in rows)
        click.echo(f"{stage_table(counted_rows, ('cached', 'to run'))}\n")
    for line in data_lines(plan):
        click.echo(wrapped(line, 8))
    cached = sum(row["state"] == "cached" for row in rows)
    click.echo(
        f"{counted('cell', len(plan.cells))}, {len(rows)} stages: {cached} cached, "
        f"{len(rows) - cached} to run"
    )
    if cost := _foreseen(plan, store):
        click.echo(cost)
    return 0


def data_lines(plan: "Plan") -> list[str]:
    """Return a line for each data folder: its task, origin, and what is read and skipped."""
    from mixbench.plan.workload import data_read

    lines = {
        f"data    {cell.task.card.name}: {_read(cell.data)}": None
        for cell in plan.cells
        if str(cell.data.contents) or cell.data.origin != "official"
    }
    readers = {(s.paths.data, s.identity.task.name): s for s in plan.stages.values()}
    lines |= {
        f"missing {place}: get it with `mixbench data get {data_read(stage).name}`": None
        for (place, _), stage in readers.items()
        if place is not None and not Path(place).exists()
    }
    return [*lines]


def _read(data: "DataSource") -> str:
    """Return where data comes from, what is in it, and where it is."""
    told = ", ".join(filter(None, [data.origin, str(data.contents)]))
    return f"{told} in {data.folder}" if data.folder else f"{told}, generated by the run"


def counted(noun: str, number: int) -> str:
    """Return a number and its noun, in the plural unless the number is 1."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _foreseen(plan: "Plan", store: "Store") -> str:
    """Return the estimated cost of the stages to run; empty if the store has no similar stage."""
    from mixbench.engines.estimate import estimate
    from mixbench.engines.progress import duration

    found = estimate((s for key, s in plan.stages.items() if not store.finished(key)), store)
    if found.unknown == found.stages:
        return ""
    gpus = f", {found.gpu_s / 3600:.3g} GPU-hours" if found.gpu_s else ""
    less = f", and {counted('stage', found.unknown)} of unknown cost" if found.unknown else ""
    return f"about {duration(found.wall_s)} in one slot{gpus}, estimated from stored stages{less}"
