"""``mixbench data import``: write a folder of images from parquet files or the Hugging Face Hub."""

from pathlib import Path

import click

from mixbench.cli.data_sets import empty, filling, moved_into_place
from mixbench.cli.options import names
from mixbench.cli.progress import bar


@click.command("import")
@click.argument("source")
@click.option(
    "--to",
    "folder",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Target folder.",
)
@click.option("--subset", default="", help="Subset, if the data set has several.")
@click.option("--splits", multiple=True, help="Splits to use, as in train,validation.")
@click.option("--image-column", default="", help="Column of images.  [default: the only one]")
@click.option("--label-column", default="", help="Column of labels.  [default: the only one]")
def import_data(
    *,
    source: str,
    folder: Path,
    subset: str,
    splits: tuple[str, ...],
    image_column: str,
    label_column: str,
) -> None:
    """Write a folder of images, for -t FOLDER, from a Hugging Face data set.

    SOURCE is a parquet file, a folder of them, or ORG/NAME of a data set of the Hub. Its image
    files are written as they are, to a folder for each class.
    """
    from mixbench.datasets.parquet import parquet_images
    from mixbench.registry.hub import parquet_of_hub

    here = Path(source).expanduser()
    folder = empty(folder)
    found = parquet_images(
        here if here.exists() else parquet_of_hub(source),
        subset=subset,
        splits=names(splits),
        image=image_column,
        label=label_column,
    )
    with (
        filling(folder),
        bar(f"importing {source}", "images") as tell,
        moved_into_place(folder) as made,
    ):
        found.write(made, tell)
    click.echo(f"{found.number:,} images: {folder}\nUse them with")
    click.echo(f"  mixbench run -m none -t {folder}")
