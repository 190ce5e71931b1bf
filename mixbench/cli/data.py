"""``mixbench data``: fetch what is published, make what resembles it, check what is there."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mixbench.cli.options import as_json
from mixbench.cli.waiting import bar, spinner
from mixbench.declare import Archive, Data, Synthetic
from mixbench.errors import DataError, DataFull, UnknownName, UsageError, naming_full_disk

if TYPE_CHECKING:
    from mixbench.archives import Finding
    from mixbench.plan.data import DataSet
    from mixbench.registry.cards import Card

FEW = 10  # wrong files that are named


@click.group()
def data() -> None:
    """Fetch, make and check the data of tasks."""


@data.command("ls")
@as_json
def list_data(*, as_json: bool) -> None:
    """List the data sets, and where they are."""
    from mixbench.plan.data import sets_by_name, whereabouts

    rows = [
        {
            "name": name,
            "tasks": [one.task.name for one in alike],
            "folder": str(whereabouts(alike[0].data)),
            "here": not _missing(alike[0].data, whereabouts(alike[0].data)),
            "licence": alike[0].data.licence,
        }
        for name, alike in sets_by_name().items()
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    width = max(len(str(row["name"])) for row in rows)
    for row in rows:
        where = row["folder"] if row["here"] else f"not here; mixbench data get {row['name']}"
        click.echo(f"{row['name']:{width}}  {where}\n{'':{width}}  licence: {row['licence']}")


@data.command()
@click.argument("name")
@click.option(
    "--from", "source", type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with the archives, where they were fetched by hand.",
)  # fmt: skip
@click.option("--to", "folder", type=click.Path(file_okay=False, path_type=Path), help="Where to.")
def get(name: str, source: Path | None, folder: Path | None) -> int:
    """Fetch a data set's archives, check and unpack them.

    The same command again continues where the last one stopped.
    """
    from mixbench.plan.data import home
    from mixbench.registry.units import load_task

    chosen = _data_set(name)
    declared = chosen.data
    click.echo(f"{declared.name}, {declared.version}\nlicence  {declared.licence}")
    click.echo(f"page     {declared.url}")
    if declared.by_hand:
        click.echo(click.wrap_text(f"by hand  {declared.by_hand}", 98, subsequent_indent=" " * 9))
    if declared.package:
        click.echo(f"It comes with the installed package {declared.package}: nothing to fetch.")
        return 0
    folder = (folder or home(declared)).expanduser().resolve()
    with _filling(folder):
        folder.mkdir(parents=True, exist_ok=True)
        task = load_task(chosen.task)(**chosen.parameters)
        marks = {archive: folder / f".unpacked-{archive.name}" for archive in declared.archives}
        new = [archive for archive, mark in marks.items() if not mark.exists()]
        # Another data set may have unpacked some of them here; what was unpacked may be gone.
        for archive in new or (marks if _missing(declared, folder) else ()):
            path = _fetched(archive, source, folder, declared)
            with spinner(f"unpacking {path.name}"):
                task.unpack(path, folder)
            marks[archive].touch()
    _get_weights(chosen, source)
    return _verified(chosen, folder, images=False, as_json=False)


def _get_weights(chosen: "DataSet", source: Path | None) -> None:
    """Fetch the published weights that tasks on this data start from."""
    from mixbench.plan.data import weights_home

    folder = weights_home()
    with _filling(folder):
        for archive in published_weights(chosen):
            folder.mkdir(parents=True, exist_ok=True)
            path = _fetched(archive, source, folder, chosen.data)
            if path.parent != folder:
                shutil.copyfile(path, folder / archive.name)


def published_weights(chosen: "DataSet") -> list[Archive]:
    """Return the weights from which the tasks on some data start."""
    from mixbench.plan.data import alike

    published = (one.task.declared.get("published", {}) for one in alike(chosen))
    return [archive for by_model in published for archive in by_model.values()]


@contextmanager
def _filling(folder: Path) -> Iterator[None]:
    """Name a folder that nothing can be written to."""
    try:
        with naming_full_disk(folder, DataFull):
            yield
    except OSError as error:
        raise DataError(
            f"{folder} cannot be written to ({error.strerror or error}): choose another place by "
            "--to."
        ) from error


def _fetched(archive: Archive, source: Path | None, folder: Path, declared: Data) -> Path:
    """Return the path of an archive that is what was published."""
    from mixbench.archives import check, download

    places = [place / archive.name for place in (source, folder) if place is not None]
    path = next((place for place in places if place.exists()), None)
    if path is not None:
        with bar(f"checking {archive.name}") as tell:
            check(path, archive, tell)
        return path
    if not archive.url:
        command = f"mixbench data get {declared.name} --from FOLDER"
        raise DataError(
            f"{archive.name} cannot be fetched without registration: get it as said above, then "
            f"give its folder with `{command}` (looked for {places[0]})."
        )
    with bar(f"fetching {archive.name}") as tell:
        return download(archive, folder, tell)


@data.command()
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
    from mixbench.plan.cells import base_values
    from mixbench.plan.data import data_of, home
    from mixbench.registry.parameters import given_to, parameters_of, read_settings

    chosen = _data_set(name)
    card, synthetic = chosen.task, chosen.task.declared["synthetic"]
    texts = {**chosen.parameters, **given_to(card, read_settings(settings))}
    if (classes := given.pop("classes")) is not None:
        texts["classes"] = str(classes)
    protocol = next(iter(synthetic.protocols), "")
    values = parameters_of(card, base_values(card, protocol), texts)
    declared = data_of(card, values)
    folder = folder or home(declared).with_name(f"{declared.name}-synthetic")
    folder = _empty(folder.expanduser().resolve())
    amount = replace(synthetic, **{n: v for n, v in given.items() if v is not None})
    with _filling(folder), spinner(f"painting the images of {card.name}"):
        _make(card, values, amount, folder)
    changed = "".join(f" --set {card.name}.{n}={values[n]}" for n in texts)
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


def _make(card: "Card", values: dict[str, Any], amount: Synthetic, folder: Path) -> None:
    """Write generated data, and beside it what was written; all of it or nothing."""
    from mixbench.plan.data import MARK, data_of, survey
    from mixbench.registry.units import load_task
    from mixbench.store import sha256, write_json

    declared = data_of(card, values)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        made = Path(scratch) / folder.name
        made.mkdir()
        load_task(card)(**values).synthesize(made, amount)
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


@data.command()
@click.argument("name")
@click.option("--data", "folder", type=click.Path(path_type=Path), help="Its folder.")
@click.option("--images", is_flag=True, help="Open every image, too.")
@as_json
def verify(*, name: str, folder: Path | None, images: bool, as_json: bool) -> int:
    """Compare a data set's files with what was published: counts and checksums.

    Generated data is compared with what was written.
    """
    from mixbench.plan.data import whereabouts

    chosen = _data_set(name)
    place = folder.expanduser().resolve() if folder else whereabouts(chosen.data)
    return _verified(chosen, place, images=images, as_json=as_json)


def _verified(chosen: "DataSet", folder: Path, *, images: bool, as_json: bool) -> int:
    """Print what is found in a data set's folder; return the exit code."""
    from mixbench.plan.data import MARK, alike
    from mixbench.plan.verify import compare
    from mixbench.registry.units import load_task

    declared = chosen.data
    findings = list(compare(declared, folder))
    generated = (folder / MARK).exists()
    if not generated and all(finding.ok for finding in findings):
        for one in alike(chosen):
            if "verify" in one.task.defines:
                findings += load_task(one.task)(**one.parameters).verify(folder)
    if images:
        findings += _opened([folder / tree for tree in declared.trees])
    wrong = [finding for finding in findings if not finding.ok]
    if as_json:
        rows = [finding._asdict() for finding in findings]
        click.echo(json.dumps({"folder": str(folder), "ok": not wrong, "found": rows}, indent=1))
        return 1 if wrong else 0
    for finding in findings:
        click.echo(f"{'ok  ' if finding.ok else 'FAIL'} {finding.path}: {finding.text}")
    if wrong:
        verb = "make" if generated else "get"
        advice = f"remove it and give `mixbench data {verb} {declared.name}`"
        click.echo(f"{folder} is not complete: {len(wrong)} wrong; {advice}.", err=True)
        return 1
    click.echo(f"{folder} is complete.")
    return 0


def _opened(trees: list[Path]) -> list["Finding"]:
    """Open the image files, if there are any; return how many can be read, and who cannot."""
    from mixbench.archives import Finding
    from mixbench.images.folders import unreadable

    if not trees:
        return []
    with bar("opening images", unit="images") as tell:
        number, faults = unreadable(trees, tell)
    text = " ".join([f"{number - len(faults)} of {number} can be read.", *faults[:FEW]])
    return [Finding("images", not faults, text)]


def _data_set(name: str) -> "DataSet":
    """Return a data set by its name, by that of a task that reads it, or by the task's file."""
    from mixbench.plan.data import sets_by_name, sets_of
    from mixbench.registry.units import find

    if name.endswith(".py"):
        return sets_of(find("task", name))[0]
    known = sets_by_name()
    tasks = {one.task.name for alike in known.values() for one in alike}
    if name not in known and name not in tasks:
        raise UnknownName("data set", name, {*known, *tasks})
    return sets_of(find("task", name))[0] if name in tasks else known[name][0]


def _missing(declared: Data, folder: Path) -> list[str]:
    return [path for path in (*declared.files, *declared.trees) if not (folder / path).exists()]
