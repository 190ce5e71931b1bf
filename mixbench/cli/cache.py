"""``mixbench cache``: list stored stages, explain cache misses, remove unused stages."""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

from mixbench.cli.engine_options import EngineOptions, engine_of, engine_options
from mixbench.cli.options import (
    CellOptions,
    as_json,
    asked_cells,
    cell_options,
    existing_store,
    make_request,
    store_option,
)
from mixbench.cli.skipped import skip
from mixbench.errors import Damaged, naming_full_disk

if TYPE_CHECKING:
    from collections.abc import Callable

    from mixbench.storage.spec import Stage
    from mixbench.storage.store import Store


class AdoptOptions(CellOptions, EngineOptions):
    """Values of the options that select cells, the engine and its resources."""


@click.group()
def cache() -> None:
    """Inspect and clean up the store."""


@cache.command("ls")
@as_json
@store_option
def list_stages(*, as_json: bool, store_path: Path) -> None:
    """List the finished stages."""
    store = existing_store(store_path)
    manifests = [*store.manifests()]
    sizes = [sum(file.bytes for file in manifest.files.values()) for manifest in manifests]
    if as_json:
        rows = [
            {
                "key": manifest.key,
                "kind": manifest.spec.stage.kind,
                "cell": manifest.spec.stage.label,
                "bytes": size,
                "ended": manifest.ended,
            }
            for manifest, size in zip(manifests, sizes, strict=True)
        ]
        click.echo(json.dumps(rows, indent=1))
        return
    for manifest, size in zip(manifests, sizes, strict=True):
        stage, mib = manifest.spec.stage, f"{size / 2**20:.2f} MiB"
        ended = manifest.ended[:16].replace("T", " ")  # to the minute
        click.echo(f"{manifest.key[:8]} {stage.kind:8} {mib:>11} {ended} {stage.label}")
    click.echo(f"{len(sizes)} stages, {sum(sizes) / 2**20:.1f} MiB")


@cache.command()
@cell_options
@as_json
@store_option
def why(*, as_json: bool, store_path: Path, **options: Unpack[CellOptions]) -> None:
    """Explain for each stage of the given cells whether it is cached, and if not, why."""
    from mixbench.plan.graph import plan
    from mixbench.plan.request import cells_of

    store = existing_store(store_path)
    stages = plan(cells_of(make_request(options))).stages
    manifests = sorted(store.manifests(), key=lambda manifest: manifest.ended)
    stored = {(s.kind, s.label): s for s in (manifest.spec.stage for manifest in manifests)}
    rows = [
        {
            "stage": s.kind,
            "cell": s.label,
            "key": key,
            "why": _reasons(s, stored.get((s.kind, s.label)), store),
        }
        for key, s in stages.items()
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    for row in rows:
        reasons = row["why"]
        assert isinstance(reasons, list)
        click.echo(f"{'rerun' if reasons else 'cached':7} {row['stage']:8} {row['cell']}")
        for reason in reasons:
            click.echo(f"        {reason}")


def _reasons(stage: "Stage", earlier: "Stage | None", store: "Store") -> list[str]:
    """Return why a stage is not cached, unlike an earlier one of its label; empty if it is."""
    from mixbench.plan.why import differences

    if store.finished(stage.key):
        return []
    if earlier is None:
        return ["no such stage is stored"]
    renewed = {role for role, key in stage.inputs.items() if not store.finished(key)}
    return list(differences(earlier, stage, renewed))


@cache.command()
@cell_options
@store_option
@engine_options
def adopt(*, store_path: Path, **options: Unpack[AdoptOptions]) -> int:
    """Let finished trainings of earlier code count for the given cells.

    After an upgrade, keys change with every line of the code that a training uses. A training whose
    versions, parameters, recipe, seed and data are the same is adopted if the first and the last
    steps, run again, give bit-identical weights. Nothing else is trained; generated data and
    searches that trainings start from are computed again. Records say so.
    """
    from rich.console import Console

    from mixbench.engines.progress import Show
    from mixbench.engines.run_state import RunState, mark_cached
    from mixbench.engines.scheduler import Scheduler
    from mixbench.plan.adoption import adoption_plan
    from mixbench.plan.graph import plan

    store = existing_store(store_path)
    planned = plan(asked_cells(options))
    adoption = adoption_plan(planned, store)
    waiting = [
        s for s in planned.stages.values() if s.kind == "train" and not store.finished(s.key)
    ]
    how = engine_of(options, max(cell.recipe.threads for cell in planned.cells))
    with naming_full_disk(store.root), Show(Console(stderr=True)) as show:
        engine = how.engine(store)
        state = RunState(adoption, store, engine.num_slots, engine.gpus, how.nodes)
        mark_cached(state, show.notice)
        Scheduler(state, engine, show, lambda _cell: None, how.options, how.limits).run()
    ends = [(adoption.stages[chain[-1]], state.states[chain[-1]]) for chain in adoption.chains]
    for stage, end in ends:
        if end.status != "done":
            click.echo(f"not adopted  {stage.label}: {end.reason}")
    adopted = sum(end.status == "done" for _, end in ends)
    click.echo(
        f"{adopted} of {len(waiting)} unfinished trainings are adopted; {len(waiting) - len(ends)} "
        "have no earlier result with the same versions, parameters and data."
    )
    return 0 if adopted == len(ends) else 1


@cache.command()
@click.option("--dry-run", is_flag=True, help="Only report what would be removed.")
@click.option(
    "--verify", is_flag=True,
    help="Read all files of all kept stages, not only the small ones, to find corrupt ones.",
)  # fmt: skip
@store_option
def gc(*, dry_run: bool, verify: bool, store_path: Path) -> None:
    """Remove all stages except those of records, of active runs and of the newest run.

    Checkpoints of removed stages are removed, too. Corrupt stages are put aside in damaged/, from
    which the next call removes them. If a record or the plan of a run cannot be read, nothing is
    removed, because its stages are not known.
    """
    from mixbench.leaderboard.store_report import read_records

    store = existing_store(store_path)
    unread: list[str] = []
    kept = {s.key for record in read_records(store, skip=unread.append) for s in record.stages}
    kept |= _wanted(store, unread.append)
    if unread:
        for what in unread:
            skip(what)
        click.echo("Nothing is removed: move what cannot be read out of the store first.")
        return
    gone = [store.folder(key) for key in store.finished_keys() if key not in kept]
    gone += [
        path
        for path in (store.root / "work").iterdir()
        if path.is_dir() and path.name not in kept and not store.running(path.name)
    ]
    gone += list((store.root / "damaged").glob("*"))
    size = 0
    for folder in gone:
        size += sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        if not dry_run:
            remove = shutil.rmtree if folder.is_dir() else Path.unlink
            remove(folder)
    for key in filter(store.finished, sorted(kept)):
        if damage := store.damage(key, every_digest=verify):
            aside = "" if dry_run else f": its stage is now in {store.quarantine(key)}"
            click.echo(f"{damage}{aside}")
    verb = "would be removed" if dry_run else "removed"
    click.echo(f"{len(gone)} folders {verb}, {size / 2**20:.1f} MiB; {len(kept)} stages are kept")


def _wanted(store: "Store", skip: "Callable[[str], None]") -> set[str]:
    """Return the keys of the stages of the newest run and of all active runs."""
    from mixbench.storage.notes import RUNS

    paths = store.noted_runs()
    alive = [path for path in paths if store.launcher_lease(path).fresh()]
    wanted: set[str] = set()
    for path in {*alive, *paths[-1:]}:
        try:
            wanted |= {stage.key for cell in RUNS.read(path).cells for stage in cell.stages}
        except (Damaged, OSError) as error:
            skip(str(error))
    return wanted
