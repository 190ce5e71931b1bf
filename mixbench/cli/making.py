"""``mixbench data make``: generated images in a data set's official layout."""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mixbench.cli.data_sets import data_set, filling
from mixbench.cli.waiting import spinner
from mixbench.declare import Synthetic
from mixbench.errors import UsageError

if TYPE_CHECKING:
    from mixbench.registry.cards import Card
    from mixbench.registry.parameters import Setting


@click.command()
@click.argument("name")
@click.option("--to", "folder", type=click.Path(file_okay=False, path_type=Path), help="Where to.")
@click.option("--classes", type=click.IntRange(1), help="How many classes.")
@click.option("--train", type=click.IntRange(1), help="Training images of every class.")
@click.option("--test", type=click.IntRange(1), help="Test images of every class.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--set", "settings", multiple=True, metavar="NAME.PARAM=VALUE", help="Of the task.")
def make(*, name: str, folder: Path | None, settings: tuple[str, ...], **given: int | None) -> None:
    """Write generated images in a data set's official layout.

    They are textured shapes on cluttered grounds: learnable, not trivial, and labelled as
    synthetic wherever their numbers are shown.

    \b
    mixbench data make cifar10 --classes 5 --train 50 --test 20 --to shapes
    """  # noqa: D301  # click's mark for lines that stay as they are
    from mixbench.plan.data import data_of, home
    from mixbench.registry.parameters import Setting, read_settings
    from mixbench.registry.units import find

    chosen = data_set(name)
    card, synthetic = chosen.task, chosen.task.declared["synthetic"]
    # An evaluation has the classes of the task whose models it evaluates.
    subject = find("task", card.declared["evaluates"]) if "evaluates" in card.declared else None
    asked = [Setting(card.name, n, str(v)) for n, v in chosen.parameters.items()]
    asked += read_settings(settings)
    if (classes := given.pop("classes")) is not None:
        asked.append(Setting((subject or card).name, "classes", str(classes)))
    protocol = next(iter(synthetic.protocols), "")
    values = _values(card, protocol, asked)
    declared = data_of(card, values)
    folder = folder or home(declared).with_name(f"{declared.name}-synthetic")
    folder = _empty(folder.expanduser().resolve())
    amount = replace(synthetic, **{n: v for n, v in given.items() if v is not None})
    with filling(folder), spinner(f"painting the images of {card.name}"):
        others = _values(subject, protocol, asked) if subject else None
        _make(card, values, others, amount, folder)
    changed = "".join(f" --set {s.unit}.{s.parameter}={s.text}" for s in asked)
    under = f" --protocol {protocol}" if protocol else ""
    click.echo(
        f"{folder}\n{amount.train} training and {amount.test} test images of every class; use it "
        f"with\n  mixbench run -m none -t {card.name}{under}{changed} --data {folder}"
    )


def _empty(folder: Path) -> Path:
    """Refuse a folder that holds something."""
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} must be empty: remove what is there, or name another by --to.")
    return folder


def _values(card: "Card", protocol: str, asked: Sequence["Setting"]) -> dict[str, Any]:
    """Return the values of a task's parameters."""
    from mixbench.plan.request import base_values
    from mixbench.registry.parameters import given_to, parameters_of

    return parameters_of(card, base_values(card, protocol), given_to(card, asked))


def _make(
    card: "Card",
    values: dict[str, Any],
    subject: dict[str, Any] | None,
    amount: Synthetic,
    folder: Path,
) -> None:
    """Write generated data, and beside it what was written; all of it or nothing."""
    from mixbench.plan.data import MARK, data_of, survey
    from mixbench.registry.units import make_task
    from mixbench.store import sha256, write_json

    declared = data_of(card, values)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        made = Path(scratch) / folder.name
        made.mkdir()
        make_task(card, values, subject).synthesize(made, amount)
        content = {
            "task": {"name": card.name, "version": card.version, "parameters": values},
            "amount": asdict(amount),
            "files": {path: sha256(made / path) for path in declared.files},
            "trees": {path: survey(made / path, declared.counted) for path in declared.trees},
        }
        write_json(made / MARK, content)
        if folder.exists():
            folder.rmdir()
        made.rename(folder)
