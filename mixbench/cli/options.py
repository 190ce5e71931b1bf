"""The options that several commands share, and what they mean."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mixbench.errors import UnknownName, UsageError

if TYPE_CHECKING:
    from mixbench.plan.cells import Cell
    from mixbench.plan.request import Request
    from mixbench.storage.store import Store

Command = Callable[..., Any]
STORE_VARIABLE = "MIXBENCH_STORE"

QUICK = "quick"  # the protocol under which a suite can be tried on generated data
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
store_option = click.option(
    "--store",
    "store_path",
    type=click.Path(path_type=Path),
    default=lambda: os.environ.get(STORE_VARIABLE, ".mixbench"),
    help=f"Folder for everything that is computed.  [default: ${STORE_VARIABLE}, or .mixbench]",
)


def request_options(command: Command) -> Command:
    """Add the options that say which cells are meant."""
    options = (
        click.option("-m", "--method", "methods", multiple=True, help="Names, or ./file.py."),
        click.option("-t", "--task", "tasks", multiple=True, help="Names, or ./file.py."),
        click.option(
            "--suite", metavar="NAME",
            help="The question of a leaderboard; -m, -t and --seeds choose a part of it.",
        ),
        click.option("--model", help="The backbone, instead of the protocol's."),
        click.option("--seeds", type=click.IntRange(1), help="How many seeds: 0, 1, ..."),
        click.option("--seed", "seed_list", help="Which seeds: 0,1,5."),
        click.option(
            "--set", "settings", multiple=True, metavar="NAME.PARAM=VALUE",
            help="A parameter of a method or task; a task's recipe too (digits.epochs=5).",
        ),
        click.option(
            "--protocol", help="The recipe: paper, or quick.  [default: the task's first one]"
        ),
        click.option("--data", help="A folder in the official layout, or: synthetic."),
        click.option(
            "--init", metavar="FILE|WORD",
            help="What training starts from, where a task starts from weights: a file of them, or "
            "pretrained, synthetic, published, timm, timm:TAG, random.",
        ),
        click.option(
            "--tune", multiple=True, is_flag=False, flag_value="", metavar="[PARAM=V,V]",
            help="Train every row with every recipe of a small grid, and take what is best on "
            "held-out images: a third, one and three times lr, a tenth, one and ten times "
            "weight_decay, or the values named here.",
        ),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def names(texts: Sequence[str]) -> list[str]:
    """Return the names in repeated options and comma lists."""
    return [name.strip() for text in texts for name in text.split(",") if name.strip()]


def asked_cells(options: dict[str, Any]) -> "list[Cell]":
    """Return the cells that the shared options ask for.

    Raises
    ------
    UsageError
        If no method or no task is named, and no suite; or if a suite is to be changed.
    """
    from mixbench.plan.request import cells_of

    if options["suite"] is None:
        return cells_of(make_request(options))
    fixed = ("model", "settings", "protocol", "data", "init", "tune")
    quick = options["protocol"] == QUICK
    if changed := [name for name in fixed if options[name] and not (name == "protocol" and quick)]:
        option = {"settings": "set"}.get(changed[0], changed[0])
        raise UsageError(
            f"--suite says what is compared, and how: leave --{option} out. Only --protocol "
            f"{QUICK} may be, to run a small copy of it."
        )
    return _of_suite(options)


def _of_suite(options: dict[str, Any]) -> "list[Cell]":
    """Return a suite's cells, those of the given methods, tasks and seeds if there are any."""
    from mixbench.leaderboard.suite import folder_of, suite_cells

    cells = suite_cells(folder_of(options["suite"]), quick=options["protocol"] == QUICK)
    chosen = cells
    for kind in ("method", "task"):
        known = {getattr(cell, kind).card.name for cell in cells}
        for name in names(options[f"{kind}s"]):
            if name not in known:
                raise UnknownName(f"{kind} of the suite", name, known)
        if wanted := names(options[f"{kind}s"]):
            chosen = [cell for cell in chosen if getattr(cell, kind).card.name in wanted]
    if options["seeds"] is None and options["seed_list"] is None:
        return chosen
    seeds = _seeds(options["seeds"], options["seed_list"])
    return [cell for cell in chosen if cell.seed in seeds]


def make_request(options: dict[str, Any]) -> "Request":
    """Return what the shared options ask for.

    Raises
    ------
    UsageError
        If no method or no task is named.
    """
    from mixbench.plan.request import Request
    from mixbench.plan.tuning import read_grid
    from mixbench.registry.parameters import read_settings

    methods, tasks = names(options["methods"]), names(options["tasks"])
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
        settings=read_settings(options["settings"]),
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
    """Return a store that a command only reads.

    Raises
    ------
    UsageError
        If there is none.
    """
    from mixbench.storage.store import Store

    store = Store(path)
    if not (store.root / "stages").is_dir():
        raise UsageError(
            f"There is no store at {store.root}. "
            "Make one with `mixbench run`, or name it by --store."
        )
    return store
