"""``mixbench data make``: generated images in a data set's official layout."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mixbench.cli.data_sets import data_set, filling
from mixbench.cli.progress import spinner
from mixbench.declare import Synthetic
from mixbench.declare.facts import ParameterValue
from mixbench.errors import UsageError

if TYPE_CHECKING:
    from mixbench.registry.cards import TaskCard
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
    from mixbench.datasets.locate import data_of, home
    from mixbench.registry.parameters import Setting, read_settings
    from mixbench.registry.units import find

    chosen = data_set(name)
    card, synthetic = chosen.task, chosen.task.declared.synthetic
    # An evaluation has the classes of the task whose models it evaluates.
    base = find("task", card.declared.evaluates) if card.declared.evaluates else None
    asked = [Setting(card.name, n, str(v)) for n, v in chosen.parameters.items()]
    asked += read_settings(settings)
    if (classes := given.pop("classes")) is not None:
        asked.append(Setting((base or card).name, "classes", str(classes)))
    protocol = next(iter(synthetic.protocols), "")
    values = _values(card, protocol, asked)
    declared = data_of(card, values)
    folder = folder or home(declared).with_name(f"{declared.name}-synthetic")
    folder = _empty(folder.expanduser().resolve())
    amount = replace(
        synthetic,
        train=given["train"] or synthetic.train,
        test=given["test"] or synthetic.test,
        seed=synthetic.seed if given["seed"] is None else given["seed"],
    )
    with filling(folder), spinner(f"painting the images of {card.name}"):
        others = _values(base, protocol, asked) if base else None
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


def _values(
    card: "TaskCard", protocol: str, asked: Sequence["Setting"]
) -> dict[str, ParameterValue]:
    """Return the values of a task's parameters."""
    from mixbench.plan.request import base_values
    from mixbench.registry.parameters import given_to, parameters_of

    return parameters_of(card, base_values(card, protocol), given_to(card, asked))


def _make(
    card: "TaskCard",
    values: dict[str, ParameterValue],
    base: dict[str, ParameterValue] | None,
    amount: Synthetic,
    folder: Path,
) -> None:
    """Write generated data, and beside it what was written; all of it or nothing."""
    from mixbench.contract.loading import make_task
    from mixbench.datasets.locate import MARK, MARKS, SyntheticMark, data_of, survey
    from mixbench.storage.files import sha256
    from mixbench.storage.spec import UnitIdentity

    declared = data_of(card, values)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        made = Path(scratch) / folder.name
        made.mkdir()
        make_task(card, values, base).synthesize(made, amount)
        mark = SyntheticMark(
            task=UnitIdentity(card.name, card.version, values),
            amount=amount,
            files={path: sha256(made / path) for path in declared.files},
            file_counts={
                path: survey(made / path, declared.suffix) for path in declared.file_counts
            },
        )
        MARKS.write(made / MARK, mark)
        if folder.exists():
            folder.rmdir()
        made.rename(folder)
