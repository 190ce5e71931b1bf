"""``mixbench export``: write a trained model that timm or torch loads."""

from collections.abc import Iterable
from pathlib import Path

import click

from mixbench.cli.current_runs import matches
from mixbench.cli.options import existing_store, store_option
from mixbench.cli.skipped import skip
from mixbench.errors import UnknownName, UsageError

SHOWN = 5


@click.command()
@click.argument("cell")
@click.option(
    "--to", required=True, type=click.Path(path_type=Path),
    help="FILE.pt2 for a program that torch.export.load reads, or a folder that timm reads.",
)  # fmt: skip
@click.option(
    "--push-to-hub", "repository", metavar="ORG/NAME",
    help="Upload the folder to the Hugging Face Hub, if you are logged in.",
)  # fmt: skip
@store_option
def export(cell: str, *, to: Path, repository: str | None, store_path: Path) -> None:
    """Write the model of a finished cell for use without mixbench; part of its name is enough.

    The model comes with the names of its classes, and with the mean and standard deviation that
    normalise its images.

    \b
    mixbench export cutmix/resnet18/s0 --to exported
    timm.create_model("local-dir:exported", pretrained=True)
    \b
    mixbench export digits/mixup --to model.pt2
    torch.export.load("model.pt2").module()
    """  # noqa: D301, DOC501  # click's marker: do not rewrap these lines
    from mixbench.figures.predictions import names_of
    from mixbench.leaderboard.store_report import read_records
    from mixbench.worker.export import export as write

    if repository is not None and to.suffix == ".pt2":
        raise UsageError("--push-to-hub needs a folder that timm reads, as in --to exported.")
    store = existing_store(store_path)
    finished = {r.cell: r for r in read_records(store, skip=skip) if r.status == "ok"}
    record = finished[_only(cell, finished)]
    key = next(stage.key for stage in record.stages if stage.kind == "evaluate" and stage.own)
    for path in write(store.manifest(key).spec.stage, store, list(names_of(store, record)), to):
        click.echo(path)
    if repository is not None:
        from mixbench.registry.hub import push

        click.echo(push(to, repository))


def _only(part: str, cells: Iterable[str]) -> str:
    """Return the only cell whose name contains a part.

    Raises
    ------
    UnknownName
        If there is none.
    UsageError
        If there are several.
    """
    found = [cell for cell in cells if matches(part.strip("/"), cell)]
    if not found:
        raise UnknownName("finished cell", part, cells, [*cells][:SHOWN])
    if len(found) > 1:
        first, more = ", ".join(found[:SHOWN]), ", ..." if len(found) > SHOWN else ""
        raise UsageError(
            f"{len(found)} cells have {part!r} in their names: name one of {first}{more}"
        )
    return found[0]
