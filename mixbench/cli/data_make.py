"""``mixbench data make``: generate images in the official layout of a data set."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mixbench.cli.data_sets import data_set, empty, filling, moved_into_place
from mixbench.cli.progress import spinner
from mixbench.declare import Synthetic
from mixbench.declare.facts import ParameterValue

if TYPE_CHECKING:
    from mixbench.registry.cards import TaskCard
    from mixbench.registry.parameters import Setting


@click.command()
@click.argument("name")
@click.option(
    "--to", "folder", type=click.Path(file_okay=False, path_type=Path), help="Target folder."
)
@click.option("--classes", type=click.IntRange(1), help="Number of classes.")
@click.option("--train", type=click.IntRange(1), help="Number of training images per class.")
@click.option("--test", type=click.IntRange(1), help="Number of test images per class.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option(
    "--set", "settings", multiple=True, metavar="NAME.PARAM=VALUE", help="Set a task parameter."
)
def make(*, name: str, folder: Path | None, settings: tuple[str, ...], **given: int | None) -> None:
    """Generate images in the official layout of a data set.

    The images show textured shapes on cluttered backgrounds. They are learnable but not trivial.
    Tables label all results on them as synthetic.

    \b
    mixbench data make cifar10 --classes 5 --train 50 --test 20 --to shapes
    """  # noqa: D301  # click's marker: do not rewrap these lines
    from mixbench.datasets.locate import data_of, home
    from mixbench.registry.parameters import Setting, read_settings
    from mixbench.registry.units import find

    chosen = data_set(name)
    card, synthetic = chosen.task, chosen.task.declared.synthetic
    # An evaluation task has the classes of its base task.
    base = find("task", card.declared.evaluates) if card.declared.evaluates else None
    asked = [Setting(card.name, n, str(v)) for n, v in chosen.parameters.items()]
    asked += read_settings(settings)
    if (classes := given.pop("classes")) is not None:
        asked.append(Setting((base or card).name, "classes", str(classes)))
    protocol = next(iter(synthetic.protocols), "")
    values = _values(card, protocol, asked)
    declared = data_of(card, values)
    folder = folder or home(declared).with_name(f"{declared.name}-synthetic")
    folder = empty(folder)
    amount = replace(
        synthetic,
        train=given["train"] or synthetic.train,
        test=given["test"] or synthetic.test,
        seed=synthetic.seed if given["seed"] is None else given["seed"],
    )
    with filling(folder), spinner(f"generating the images of {card.name}"):
        others = _values(base, protocol, asked) if base else None
        _make(card, values, others, amount, folder)
    changed = "".join(f" --set {s.unit}.{s.parameter}={s.text}" for s in asked)
    under = f" --protocol {protocol}" if protocol else ""
    click.echo(
        f"{folder}\n{amount.train} training and {amount.test} test images per class; use them "
        f"with\n  mixbench run -m none -t {card.name}{under}{changed} --data {folder}"
    )


def _values(
    card: "TaskCard", protocol: str, asked: Sequence["Setting"]
) -> dict[str, ParameterValue]:
    """Return the values of a task's parameters: defaults, protocol, then settings."""
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
    """Write generated data and a file that describes it, atomically."""
    from mixbench.contract.loading import make_task
    from mixbench.datasets.locate import MARK, MARKS, SyntheticMark, data_of
    from mixbench.datasets.survey import tree
    from mixbench.storage.files import sha256
    from mixbench.storage.spec import UnitIdentity

    declared = data_of(card, values)
    with moved_into_place(folder) as made:
        make_task(card, values, base).synthesize(made, amount)
        mark = SyntheticMark(
            task=UnitIdentity(card.name, card.version, values),
            amount=amount,
            files={path: sha256(made / path) for path in declared.files},
            file_counts={path: tree(made / path, declared) for path in declared.file_counts},
        )
        MARKS.write(made / MARK, mark)
