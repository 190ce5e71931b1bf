"""``mixbench data convert``: write a data set in its official layout from a re-encoded copy."""

from pathlib import Path

import click

from mixbench.cli.data_sets import data_set, empty, filling, moved_into_place
from mixbench.cli.progress import spinner


@click.command()
@click.argument("name")
@click.option(
    "--from", "source", required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder of the copy.",
)  # fmt: skip
@click.option(
    "--to", "folder", type=click.Path(file_okay=False, path_type=Path), help="Target folder."
)
def convert(*, name: str, source: Path, folder: Path | None) -> None:
    """Write a data set in its official layout from a copy in another format.

    For cifar10 and cifar100, the copy has image files in train/CLASS and test/CLASS, as in many
    public copies. Such copies are often lossy. Records and tables label their results as
    re-encoded, and never compare them with results on the original.
    """
    from mixbench.contract.loading import make_task
    from mixbench.datasets.locate import CONVERSIONS, CONVERTED, ConvertedMark, digest_cache, home
    from mixbench.datasets.survey import folder_digest
    from mixbench.storage.files import sha256
    from mixbench.storage.spec import UnitIdentity

    chosen = data_set(name)
    card, declared = chosen.task, chosen.data
    folder = empty(folder or home(declared).with_name(f"{declared.name}-re-encoded"))
    source = source.expanduser().resolve()
    with filling(folder), spinner(f"converting {source}"), moved_into_place(folder) as made:
        make_task(card, chosen.parameters).convert(source, made)
        mark = ConvertedMark(
            task=UnitIdentity(card.name, card.version, chosen.parameters),
            source=folder_digest(source, digest_cache()),
            files={path: sha256(made / path) for path in declared.files},
        )
        CONVERSIONS.write(made / CONVERTED, mark)
    click.echo(f"{folder}\nUse it with\n  mixbench run -m none -t {card.name} --data {folder}")
