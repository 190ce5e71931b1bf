"""Which engine runs stages, and what it may use: options, and the settings' file beneath them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mixbench.cli.options import names
from mixbench.errors import BadParameter, UsageError

if TYPE_CHECKING:
    from mixbench.engines.engine import Engine
    from mixbench.engines.scheduler import Limits
    from mixbench.engines.settings import RaySettings, Settings, SlurmSettings
    from mixbench.storage.spec import ExecutionOptions
    from mixbench.storage.store import Store

Command = Callable[..., Any]
Asked = TypeVar("Asked", "SlurmSettings", "RaySettings")


OPTIONS = (
    click.option(
        "--engine", type=click.Choice(["local", "slurm", "ray"]),
        help="Where stages run.  [default: that of the settings, or local]",
    ),
    click.option(
        "--settings", "settings_path", type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE", help="Of engines, in TOML.  [default: ./mixbench.toml, if it is there]",
    ),
    click.option("--gpus", metavar="0,1", help="The GPUs of this machine to use."),
    click.option(
        "--jobs-per-gpu", type=click.IntRange(1), metavar="N",
        help="How many stages share one GPU.",
    ),
    click.option(
        "--gpus-per-cell", type=click.IntRange(1), default=1, show_default=True, metavar="N",
        help="How many GPUs train one model together, on each of its nodes.",
    ),
    click.option(
        "--workers", type=click.IntRange(0), metavar="N",
        help="Processes that read images ahead, for each cell.  [default: what slots leave]",
    ),
    click.option(
        "--pack", type=click.IntRange(1), default=1, show_default=True, metavar="N",
        help="How many trainings of one task share a slot as one process, in turns: with --record, "
        "small nets fill a GPU so.",
    ),
    click.option(
        "--cuda-graphs", is_flag=True,
        help="Record the work of a training step as a CUDA graph, after comparing it with the "
        "plain step: meant for small nets.",
    ),
    click.option(
        "--checkpoint-every", type=click.IntRange(1), default=200, show_default=True,
        metavar="STEPS", help="How much work a crash may cost.",
    ),
    click.option("--timeout", metavar="TIME", help="What a stage may take, as 90s or 2h30m."),
    click.option(
        "--retries", type=click.IntRange(0), metavar="N",
        help="How often a lost stage is started again; one with an error never is.  "
        "[default: 2]",
    ),
    click.option(
        "--max-gpu-hours", type=click.FloatRange(0, min_open=True), metavar="HOURS",
        help="After which no stage is started any more.",
    ),
)  # fmt: skip


def engine_options(command: Command) -> Command:
    """Add the options that say where and how stages run."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


@dataclass(frozen=True)
class Run:
    """What the options make of a run: an engine once there is a store, options and limits.

    Attributes
    ----------
    nodes
        That train one model together.
    slurm
        What jobs ask for, where stages are jobs.
    """

    name: str
    options: "ExecutionOptions"
    limits: "Limits"
    engine: "Callable[[Store], Engine]"
    nodes: int
    slurm: "SlurmSettings | None"


def engine_of(options: dict[str, Any], threads: int) -> Run:
    """Return how stages will run.

    Parameters
    ----------
    threads
        Of the plan's recipes, the most.

    Raises
    ------
    UsageError
        If there is no such machine, GPU or setting.
    """
    from mixbench.engines.scheduler import Limits
    from mixbench.engines.settings import read_settings_file
    from mixbench.storage.spec import ExecutionOptions

    if options["pack"] > 1 and options["gpus_per_cell"] > 1:
        raise UsageError(
            "--pack trains several models on one GPU, and --gpus-per-cell one model on several: "
            "take one of them."
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
        raise UsageError("--max-gpu-hours: there are no GPUs here whose hours could be counted.")
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
        raise BadParameter(f"--timeout must be more than nothing (got {text!r}).")
    return seconds


def _local(
    options: dict[str, Any], settings: "Settings", threads: int, timeout_s: float | None
) -> "tuple[Callable[[Store], Engine], int, float]":
    """Return the engine of this machine, the readers of a stage, and its GPUs."""
    from mixbench.engines.gpus import readers, slots_of
    from mixbench.engines.local import LocalEngine

    chosen = names([options["gpus"]]) if options["gpus"] else list(settings.local.gpus)
    per_gpu = options["jobs_per_gpu"] or settings.local.jobs_per_gpu
    slots = slots_of(options["gpus_per_cell"], threads, gpus=chosen or None, per_gpu=per_gpu)
    limit = float("inf") if timeout_s is None else timeout_s
    held = len(slots[0].gpus) * slots[0].share
    return lambda store: LocalEngine(store.root, slots, limit), readers(slots), held


def _asked(options: dict[str, Any], settings: "Asked", name: str) -> "Asked":
    """Return what a cluster is asked for: its settings, with what the options say instead."""
    if options["pack"] > 1:
        raise UsageError(f"--pack shares slots of this machine (got --engine {name}).")
    if options["gpus"]:
        raise UsageError(f"--gpus names GPUs of this machine; --engine {name} finds its own.")
    if options["jobs_per_gpu"] is None:
        return settings
    return settings.model_copy(update={"jobs_per_gpu": options["jobs_per_gpu"]})


def _ray(
    options: dict[str, Any], settings: "Settings", timeout_s: float | None
) -> "Callable[[Store], Engine]":
    """Return the engine of a Ray cluster, which says what it has when it is joined."""
    from mixbench.engines.ray_cluster import RayEngine

    asked = _asked(options, settings.ray, "ray")
    limit = float("inf") if timeout_s is None else timeout_s
    return lambda store: RayEngine(store, asked, options["gpus_per_cell"], limit)


def _slurm(
    options: dict[str, Any], settings: "Settings", timeout_s: float | None
) -> "tuple[Callable[[Store], Engine], float]":
    """Return the engine of a SLURM cluster, and the GPUs of a stage."""
    from mixbench.engines.slurm import SlurmEngine, resources_of

    asked = _asked(options, settings.slurm, "slurm")
    resources = resources_of(asked, options["gpus_per_cell"])
    return lambda store: SlurmEngine(store, asked, resources, timeout_s), resources.gpus
