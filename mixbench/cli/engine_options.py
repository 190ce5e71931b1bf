"""Options that select the engine and its resources; they override the settings file."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, TypeVar

import click
from click.decorators import FC

from mixbench.cli.options import names
from mixbench.errors import BadParameter, UsageError

if TYPE_CHECKING:
    from mixbench.engines.engine import Engine
    from mixbench.engines.scheduler import Limits
    from mixbench.engines.settings import RaySettings, Settings, SlurmSettings
    from mixbench.storage.spec import ExecutionOptions
    from mixbench.storage.store import Store

Asked = TypeVar("Asked", "SlurmSettings", "RaySettings")


class EngineOptions(TypedDict):
    """Values of the options that select the engine and its resources."""

    engine: str | None
    settings_path: Path | None
    gpus: str | None
    jobs_per_gpu: int | None
    gpus_per_cell: int
    workers: int | None
    pack: int
    cuda_graphs: bool
    checkpoint_every: int | None
    timeout: str | None
    retries: int | None
    max_gpu_hours: float | None


OPTIONS = (
    click.option(
        "--engine", type=click.Choice(["local", "slurm", "ray"]),
        help="Engine that runs the stages.  [default: engine of the settings file, or local]",
    ),
    click.option(
        "--settings", "settings_path", type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="TOML file with engine settings.  [default: $MIXBENCH_SETTINGS, or ./mixbench.toml]",
    ),
    click.option("--gpus", metavar="0,1", help="Indices of the GPUs to use on this machine."),
    click.option(
        "--jobs-per-gpu", type=click.IntRange(1), metavar="N",
        help="Number of stages that share one GPU.",
    ),
    click.option(
        "--gpus-per-cell", type=click.IntRange(1), default=1, show_default=True, metavar="N",
        help="Number of GPUs per node that train one model together.",
    ),
    click.option(
        "--workers", type=click.IntRange(0), metavar="N",
        help="DataLoader workers per cell.  [default: depends on the CPU cores per slot]",
    ),
    click.option(
        "--pack", type=click.IntRange(1), default=1, show_default=True, metavar="N",
        help="Train N cells of one task interleaved in one process. Combine it with --cuda-graphs "
        "to use a GPU fully with small models.",
    ),
    click.option(
        "--cuda-graphs", is_flag=True,
        help="Capture the training step as a CUDA graph, after validating it against the eager "
        "step. Intended for small models.",
    ),
    click.option(
        "--checkpoint-every", type=click.IntRange(1), metavar="N",
        help="Write a checkpoint every N steps.  [default: every 5 minutes]",
    ),
    click.option("--timeout", metavar="TIME", help="Time limit per stage, as in 90s or 2h30m."),
    click.option(
        "--retries", type=click.IntRange(0), metavar="N",
        help="Number of restarts of a stage whose process was lost. A stage that raised an error "
        "is not restarted.  [default: 2]",
    ),
    click.option(
        "--max-gpu-hours", type=click.FloatRange(0, min_open=True), metavar="HOURS",
        help="GPU-hour budget of the plan: no stage starts after its stages have used it up, "
        "whichever command ran them.",
    ),
)  # fmt: skip


def engine_options(command: FC) -> FC:
    """Add the options that select where and how stages run."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


@dataclass(frozen=True)
class Run:
    """How a run executes its stages.

    Attributes
    ----------
    name
        Name of the engine: local, slurm or ray.
    options
        Execution options of every stage.
    limits
        Retries per stage, GPU-hour budget, and tasks of the run.
    engine
        Function that creates the engine for a store.
    nodes
        Number of nodes that train one model together.
    slurm
        Resources that each SLURM job requests; None with another engine.
    """

    name: str
    options: "ExecutionOptions"
    limits: "Limits"
    engine: "Callable[[Store], Engine]"
    nodes: int
    slurm: "SlurmSettings | None"


def runs_of(options: EngineOptions, threads: int, tasks: Iterable[str]) -> list[Run]:
    """Return how the tasks of a plan run: an entry for each number of GPUs per cell, largest first.

    Raises
    ------
    UnknownName
        If the settings file names a task that does not exist.
    """
    from mixbench.engines.settings import read_settings_file
    from mixbench.registry.units import find

    sizes = read_settings_file(options["settings_path"]).gpus_per_cell
    for name in sizes:
        find("task", name)
    by_size: dict[int, set[str]] = {}
    for task in tasks:
        by_size.setdefault(sizes.get(task, options["gpus_per_cell"]), set()).add(task)
    found = []
    for size in sorted(by_size, reverse=True):
        sized: EngineOptions = {**options, "gpus_per_cell": size}
        run = engine_of(sized, threads)
        found.append(replace(run, limits=replace(run.limits, tasks=frozenset(by_size[size]))))
    return found


def engine_of(options: EngineOptions, threads: int) -> Run:
    """Return the engine, the execution options and the limits that the command line selects.

    Parameters
    ----------
    options
        Values of the command-line options by name.
    threads
        Largest number of CPU threads that a recipe of the plan uses.

    Raises
    ------
    UsageError
        If options exclude each other, a GPU does not exist, or a setting is unknown.
    """
    from mixbench.engines.scheduler import Limits
    from mixbench.engines.settings import read_settings_file
    from mixbench.storage.spec import ExecutionOptions

    if options["pack"] > 1 and options["gpus_per_cell"] > 1:
        raise UsageError(
            "--pack trains several models on one GPU and --gpus-per-cell trains one model on "
            "several GPUs: use only one of the two options."
        )
    settings = read_settings_file(options["settings_path"])
    name = options["engine"] or settings.engine
    timeout_s = _timeout(options["timeout"], settings)
    if name == "local":
        engine, workers, gpus = _local(options, settings, threads, timeout_s)
        nodes = 1
    elif name == "slurm":
        engine, gpus = _slurm(options, settings, timeout_s)
        workers, nodes = settings.slurm.cpus - 1, settings.slurm.nodes
    else:
        engine = _ray(options, settings, timeout_s)
        workers, nodes, gpus = max(int(settings.ray.cpus) - 1, 0), settings.ray.nodes, None
    if options["max_gpu_hours"] is not None and gpus == 0:
        raise UsageError("--max-gpu-hours: there are no GPUs here; omit the option.")
    return Run(
        name,
        ExecutionOptions(
            checkpoint_every=options["checkpoint_every"],
            workers=workers if options["workers"] is None else options["workers"],
            processes=options["gpus_per_cell"] * nodes,
            cuda_graphs=options["cuda_graphs"],
            pack=options["pack"],
        ),
        Limits(
            retries=settings.retries if options["retries"] is None else options["retries"],
            gpu_hours=options["max_gpu_hours"] or float("inf"),
        ),
        engine,
        nodes,
        settings.slurm if name == "slurm" else None,
    )


def _timeout(text: str | None, settings: "Settings") -> float | None:
    from mixbench.engines.settings import seconds_of

    if text is None:
        return settings.timeout
    try:
        seconds = seconds_of(text)
    except ValueError as error:
        raise BadParameter(f"--timeout {error}.") from error
    if seconds <= 0:
        raise BadParameter(f"--timeout must be positive, as in 90s or 2h30m (got {text!r}).")
    return seconds


def _local(
    options: EngineOptions, settings: "Settings", threads: int, timeout_s: float | None
) -> "tuple[Callable[[Store], Engine], int, float]":
    """Return the local engine, the DataLoader workers per stage, and the GPUs per stage."""
    from mixbench.engines.gpus import readers, slots_of
    from mixbench.engines.local import LocalEngine

    chosen = names([options["gpus"]]) if options["gpus"] else list(settings.local.gpus)
    per_gpu = options["jobs_per_gpu"] or settings.local.jobs_per_gpu
    slots = slots_of(options["gpus_per_cell"], threads, gpus=chosen or None, per_gpu=per_gpu)
    limit = float("inf") if timeout_s is None else timeout_s
    held = len(slots[0].gpus) * slots[0].share
    return lambda store: LocalEngine(store.root, slots, limit), readers(slots), held


def _asked(options: EngineOptions, settings: "Asked", name: str) -> "Asked":
    """Return the settings of a cluster, updated with the command-line options."""
    if options["pack"] > 1:
        raise UsageError(f"--pack needs --engine local (got --engine {name}): omit --pack.")
    if options["gpus"]:
        raise UsageError(
            f"--gpus selects GPUs of this machine and needs --engine local (got --engine {name}): "
            "omit --gpus."
        )
    if options["jobs_per_gpu"] is None:
        return settings
    return settings.model_copy(update={"jobs_per_gpu": options["jobs_per_gpu"]})


def _ray(
    options: EngineOptions, settings: "Settings", timeout_s: float | None
) -> "Callable[[Store], Engine]":
    """Return the engine of a Ray cluster; it queries the resources when it connects."""
    from mixbench.engines.ray_cluster import RayEngine

    asked = _asked(options, settings.ray, "ray")
    limit = float("inf") if timeout_s is None else timeout_s
    return lambda store: RayEngine(store, asked, options["gpus_per_cell"], limit)


def _slurm(
    options: EngineOptions, settings: "Settings", timeout_s: float | None
) -> "tuple[Callable[[Store], Engine], float]":
    """Return the engine of a SLURM cluster and the number of GPUs per stage."""
    from mixbench.engines.slurm import SlurmEngine, resources_of

    asked = _asked(options, settings.slurm, "slurm")
    resources = resources_of(asked, options["gpus_per_cell"])
    return lambda store: SlurmEngine(store, asked, resources, timeout_s), resources.gpus
