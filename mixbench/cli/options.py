"""Options that several commands share, and functions that interpret them."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import click
from click.decorators import FC

from mixbench.cli.completion import completed, methods, models, suites, tasks
from mixbench.cli.request_file import config_options, save_request
from mixbench.declare.facts import MOST_SEEDS
from mixbench.errors import UnknownName, UsageError

if TYPE_CHECKING:
    from mixbench.leaderboard.ranks import Rule
    from mixbench.plan.cells import Cell
    from mixbench.plan.request import Request
    from mixbench.storage.store import Store

STORE_VARIABLE = "MIXBENCH_STORE"

QUICK = "quick"  # protocol that runs a small version of a suite on generated data
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
store_option = click.option(
    "--store",
    "store_path",
    type=click.Path(path_type=Path),
    default=lambda: os.environ.get(STORE_VARIABLE, ".mixbench"),
    help=f"Folder of the store.  [default: ${STORE_VARIABLE}, or .mixbench]",
)


class CellOptions(TypedDict):
    """Values of the options that select cells."""

    methods: tuple[str, ...]
    tasks: tuple[str, ...]
    suite: str | None
    model: str | None
    seeds: int | None
    seed_list: str | None
    settings: tuple[str, ...]
    accumulate: int | None
    limit: int | None
    max_steps: int | None
    protocol: str | None
    data: str | None
    init: str | None
    tune: tuple[str, ...]


def cell_options(command: FC) -> FC:
    """Add the options that select cells."""
    options = (
        click.option(
            "-m", "--method", "methods", multiple=True, help="Methods: names, ./file.py.",
            shell_complete=completed(methods),
        ),
        click.option(
            "-t", "--task", "tasks", multiple=True, shell_complete=completed(tasks),
            help="Tasks: names, ./file.py, or a folder of your own images.",
        ),
        click.option(
            "--suite", metavar="NAME", shell_complete=completed(suites),
            help="A leaderboard suite; -m, -t and --seeds select a part of it.",
        ),
        click.option(
            "--model", shell_complete=completed(models),
            help="Model to use instead of the protocol's: a name of timm or torchvision, "
            "hf-hub:ORG/NAME, or ./FILE.py with a function build(num_classes).",
        ),
        click.option(
            "--seeds",
            type=click.IntRange(1, MOST_SEEDS),
            help="Number of seeds: 0, 1, ...",
        ),
        click.option("--seed", "seed_list", help="Seeds to run, as in 0,1,5."),
        click.option(
            "--set", "settings", multiple=True, metavar="NAME.PARAM=VALUE",
            help="Set a parameter of a method or task, or a recipe field of a task "
            "(digits.epochs=5) or of all tasks (recipe.precision=bfloat16).",
        ),
        click.option(
            "--accumulate", type=click.IntRange(1), metavar="N",
            help="Compute each batch in N parts, for models that need more memory than there is "
            "(same as --set recipe.accumulate=N).",
        ),
        click.option(
            "--limit", type=click.IntRange(1), metavar="N",
            help="Use N images of each split, for a trial, which is not ranked.",
        ),
        click.option(
            "--max-steps", type=click.IntRange(1), metavar="N",
            help="Train N steps, for a trial, which is not ranked.",
        ),
        click.option(
            "--protocol",
            help="Training protocol, such as paper, quick or deit.  [default: the task's first]",
        ),
        click.option("--data", help="Folder with the official layout, or: synthetic."),
        click.option(
            "--init", metavar="FILE|WORD",
            help="Initial weights: a checkpoint file or one of pretrained, synthetic, published, "
            "timm, timm:TAG, hf-hub:ORG/NAME, random. Only for tasks that start from weights.",
        ),
        click.option(
            "--tune", multiple=True, is_flag=False, flag_value="", metavar="[PARAM=V,V]",
            help="Grid-search lr and weight_decay on the validation split, per method and seed. "
            "Default grid: lr times 0.3, 1 and 3, weight_decay times 0.1, 1 and 10. Give values "
            "to search another grid.",
        ),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return config_options(command)


def names(texts: Sequence[str]) -> list[str]:
    """Return the names given by repeated options and comma-separated lists."""
    return [name.strip() for text in texts for name in text.split(",") if name.strip()]


def asked_cells(options: CellOptions, *, without_data: bool = False) -> "list[Cell]":
    """Return the cells that the shared options select; to plan only, `without_data` suffices.

    Raises
    ------
    UsageError
        If the options name neither a suite nor both a method and a task, or if they change a
        setting that the suite fixes.
    """
    from mixbench.plan.checks import unsuited
    from mixbench.plan.request import cells_of

    context = click.get_current_context()
    if (path := context.meta.get("save_config")) is not None:
        save_request(context, path)
    if options["suite"] is None:
        cells = cells_of(replace(make_request(options), without_data=without_data))
        for warning in dict.fromkeys(filter(None, map(unsuited, cells))):
            click.echo(f"warning: {warning}", err=True)
        return cells
    fixed = {
        "model": options["model"],
        "set": options["settings"],
        "accumulate": options["accumulate"],
        "limit": options["limit"],
        "max-steps": options["max_steps"],
        "protocol": options["protocol"] != QUICK and options["protocol"],
        "data": options["data"],
        "init": options["init"],
        "tune": options["tune"],
    }
    if option := next((name for name, value in fixed.items() if value), None):
        raise UsageError(
            f"--suite fixes --{option}: omit it. The only setting that you can change is "
            f"--protocol {QUICK}, which runs a small version of the suite."
        )
    return _of_suite(options["suite"], options, without_data=without_data)


def _of_suite(suite: str, options: CellOptions, *, without_data: bool) -> "list[Cell]":
    """Return a suite's cells, restricted to the given methods, tasks and seeds if any."""
    from mixbench.leaderboard.suite import folder_of, suite_cells

    quick = options["protocol"] == QUICK
    cells = suite_cells(folder_of(suite), quick=quick, without_data=without_data)
    chosen = cells
    for kind, given in (("method", options["methods"]), ("task", options["tasks"])):
        known = {getattr(cell, kind).card.name for cell in cells}
        for name in names(given):
            if name not in known:
                raise UnknownName(f"{kind} of the suite", name, known)
        if wanted := names(given):
            chosen = [cell for cell in chosen if getattr(cell, kind).card.name in wanted]
    if options["seeds"] is None and options["seed_list"] is None:
        return chosen
    seeds = _seeds(options["seeds"], options["seed_list"])
    return [cell for cell in chosen if cell.seed in seeds]


def rule_of(suite: str | None) -> "Rule":
    """Return the comparisons that a suite declares; by default, each method with the baseline."""
    from mixbench.leaderboard.ranks import Rule
    from mixbench.leaderboard.suite import folder_of, read_suite

    return Rule() if suite is None else read_suite(folder_of(suite)).rule


def make_request(options: CellOptions) -> "Request":
    """Return the request that the shared options describe.

    Raises
    ------
    UsageError
        If the options name no method or no task.
    """
    from mixbench.plan.request import EVERY_RECIPE, Request
    from mixbench.plan.tuning import read_grid
    from mixbench.registry.parameters import Setting, read_settings

    methods, tasks = names(options["methods"]), names(options["tasks"])
    settings = read_settings(options["settings"])
    of_recipes = {
        "accumulate": options["accumulate"],
        "limit": options["limit"],
        "max_steps": options["max_steps"],
    }
    settings += [
        Setting(EVERY_RECIPE, name, str(value))
        for name, value in of_recipes.items()
        if value is not None
    ]
    for kind, given in (("method", methods), ("task", tasks)):
        if not given:
            raise UsageError(f"Name at least one {kind} with --{kind}; see: mixbench list {kind}s.")
    return Request(
        methods=methods,
        tasks=tasks,
        seeds=_seeds(options["seeds"], options["seed_list"]),
        model=options["model"],
        protocol=options["protocol"],
        data=options["data"],
        settings=settings,
        init=options["init"],
        tune=read_grid(options["tune"]) if options["tune"] else None,
    )


def _seeds(number: int | None, listed: str | None) -> list[int]:
    if number is not None and listed is not None:
        raise UsageError("Give either --seeds N (how many) or --seed 0,1 (which), not both.")
    if listed is None:
        return list(range(number or 1))
    texts = names([listed])
    if not texts or not all(text.isdecimal() for text in texts):
        raise UsageError(f"--seed must be whole numbers, as in 0,1,2 (got {listed!r}).")
    return [int(text) for text in texts]


def existing_store(path: Path) -> "Store":
    """Return an existing store, for commands that do not create one.

    Raises
    ------
    UsageError
        If the folder is not a store.
    """
    from mixbench.storage.store import Store

    store = Store(path)
    if not (store.root / "stages").is_dir():
        raise UsageError(
            f"There is no store at {store.root}. "
            "Create one with `mixbench run`, or select another folder with --store."
        )
    return store
