"""Location of a task's data, and the digest that identifies its content."""

import hashlib
import importlib.util
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Final

from pydantic import AliasChoices, Field

from mixbench.datasets.archives import digest_of
from mixbench.declare import Data, Synthetic
from mixbench.declare.facts import ParameterValue
from mixbench.errors import DataError, UsageError
from mixbench.registry.cards import TaskCard
from mixbench.registry.units import find, paths
from mixbench.storage.files import Typed, sha256
from mixbench.storage.spec import Origin, UnitIdentity

SYNTHETIC: Final = "synthetic"
VARIABLE = "MIXBENCH_DATA"
MARK = "mixbench-synthetic.json"  # file that marks a folder of generated data


@dataclass(frozen=True)
class SyntheticMark:
    """The content of the file that marks a folder of generated data.

    Attributes
    ----------
    task
        Task for which the data was generated.
    amount
        Amount of generated data, and its seed.
    files
        SHA-256 of single files, by path.
    file_counts
        Number of files in each folder and a digest of their names and sizes, by the folder's path.
    """

    task: UnitIdentity
    amount: Synthetic
    files: Mapping[str, str]
    file_counts: Annotated[
        Mapping[str, tuple[int, str]],
        Field(validation_alias=AliasChoices("file_counts", "trees")),  # its name until 2026
    ]


MARKS = Typed(SyntheticMark)


@dataclass(frozen=True)
class DataSource:
    """The data that a cell reads.

    Attributes
    ----------
    origin
        ``official`` if the digests and file counts equal the published ones, ``modified`` if they
        differ, ``synthetic`` if the data is generated.
    folder
        Folder of the files; None for data that a stage generates in the store.
    digest
        Digest of the content; empty for data that a stage generates, which the stage's key
        identifies.
    """

    origin: Origin
    folder: Path | None
    digest: str


def home(data: Data) -> Path:
    """Return the default folder of a data set."""
    return _root() / (data.shares_folder_with or data.name)


def weights_home() -> Path:
    """Return the folder of published model weights."""
    return _root() / "weights"


def _root() -> Path:
    root = os.environ.get(VARIABLE)
    return Path(root).expanduser() if root else Path.home() / ".cache" / "mixbench"


@dataclass(frozen=True)
class DataSet:
    """The data of a task, or one of its variants.

    Attributes
    ----------
    data
        Declaration of the data set.
    task
        Card of a task that reads the data set.
    parameters
        Parameters of the task that select this variant; empty if there is only one.
    """

    data: Data
    task: TaskCard
    parameters: Mapping[str, ParameterValue] = field(default_factory=dict)


def data_of(task: TaskCard, parameters: Mapping[str, ParameterValue]) -> Data:
    """Return a task's data; if there are variants, the one that its parameters select."""
    variant = parameters.get("variant", "")
    return task.declared.variants.get(str(variant), task.declared.data)


def data_sets_of(task: TaskCard) -> list[DataSet]:
    """Return the data sets of a task, one for each variant, the default variant first.

    An evaluation that does not declare data reads the data of its base task.
    """
    if task.declared.evaluates:
        subject = find("task", task.declared.evaluates)
        if task.declared.data == subject.declared.data:
            return data_sets_of(subject)
    data, variants = task.declared.data, task.declared.variants
    found = [DataSet(other, task, {"variant": name}) for name, other in variants.items()]
    return sorted(found, key=lambda one: one.data != data) or [DataSet(data, task)]


def data_sets_by_name() -> dict[str, list[DataSet]]:
    """Return all data sets by name, with one entry for each task that reads them."""
    known: dict[str, list[DataSet]] = {}
    for name in paths("task"):
        for one in data_sets_of(find("task", name)):
            if one.task.name == name:
                known.setdefault(one.data.name, []).append(one)
    return known


def datasets_sharing_files(one: DataSet) -> list[DataSet]:
    """Return `one` and the data sets of the same name that other tasks read."""
    others = data_sets_by_name().get(one.data.name, [])
    return [one, *(other for other in others if other.task.name != one.task.name)]


def locate(
    task: TaskCard,
    asked: str | None,
    protocol: str = "",
    parameters: Mapping[str, ParameterValue] = MappingProxyType({}),
) -> DataSource:
    """Return the data that a cell reads, according to the value of ``--data``.

    Parameters
    ----------
    task
        Card of the task that reads the data.
    asked
        Value of ``--data``: a folder or ``synthetic``; None for the protocol's default, which is
        generated data or the data in its default folder.
    protocol
        Name of the protocol.
    parameters
        Parameters of the task, which select the variant of its data.

    Raises
    ------
    DataError
        If the folder does not exist or a file is missing.
    """
    data = data_of(task, parameters)
    synthetic = task.declared.synthetic
    if asked == SYNTHETIC or (asked is None and protocol in synthetic.protocols):
        return DataSource(SYNTHETIC, None, "")
    if asked is None:
        return _source(data, _installed(task, data))
    folder = Path(asked).expanduser().resolve()
    inside = next(iter((*data.files, *data.file_counts))).split("/")[0]
    if folder.name == inside and not (folder / inside).exists():
        folder = folder.parent  # the user gave the data's own folder instead of its parent
    try:
        return _source(data, folder)
    except DataError as error:
        names = ", ".join((*data.files, *data.file_counts))
        raise DataError(
            f"The task {task.name}: {error} Give the folder that contains {names} with "
            f"--data PATH, or use generated images with --data {SYNTHETIC}."
        ) from error


def data_dir(data: Data) -> Path:
    """Return the folder in which data is searched: in an installed package, or the default."""
    spec = importlib.util.find_spec(data.package) if data.package else None
    if spec is not None and spec.submodule_search_locations:
        return Path(spec.submodule_search_locations[0]) / data.folder
    return home(data)


def _installed(task: TaskCard, data: Data) -> Path:
    """Return the folder of the installed data; raise if a file or folder is missing."""
    place = data_dir(data)
    if all((place / name).exists() for name in (*data.files, *data.file_counts)):
        return place
    ways = [f"--protocol {protocol}" for protocol in task.declared.synthetic.protocols]
    raise DataError(
        f"The task {task.name} needs {data.name} ({data.url}), which is not at {place}. "
        f"Download it with `mixbench data get {data.name}`, give its folder with --data PATH, or "
        f"use generated images with {' or '.join((*ways, f'--data {SYNTHETIC}'))}."
    )


def _source(data: Data, folder: Path) -> DataSource:
    """Compare the files of a folder with the published ones and return the data source."""
    found = {name: _digest(folder / name, official) for name, official in data.files.items()}
    same = all(found[name] == official for name, official in data.files.items() if official)
    counts = {}
    for name in data.file_counts:
        counts[name], found[name] = survey(folder / name, data.suffix)
    same = same and all(
        counts[name] == number for name, number in data.file_counts.items() if number
    )
    origin: Origin = "official" if same else "modified"
    if (folder / MARK).exists():
        origin = SYNTHETIC
    return DataSource(origin, folder, _combined(found))


def _digest(path: Path, like: str) -> str:
    try:
        return digest_of(path, like)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).") from error


def survey(folder: Path, suffix: str = "") -> tuple[int, str]:
    """Return the number of files under a folder, and a digest of their names and sizes.

    The content of the files is not read, because this runs before every run and a folder may
    contain a million images. `mixbench data verify` applies the task's checks of the content.

    Raises
    ------
    DataError
        If the folder cannot be read.
    """
    digest, number = hashlib.sha256(), 0
    try:
        for name, size in _files(folder, ""):
            if name.endswith(suffix):
                digest.update(f"{name}={size};".encode())
                number += 1
    except OSError as error:
        raise DataError(f"{folder} cannot be read ({error.strerror}).") from error
    return number, digest.hexdigest()


def _files(folder: Path, prefix: str) -> Iterator[tuple[str, int]]:
    """Yield the path and size of each file under a folder, sorted by name; skip hidden files."""
    with os.scandir(folder) as entries:
        shown = (entry for entry in entries if not entry.name.startswith("."))  # of file managers
        for entry in sorted(shown, key=lambda e: e.name):
            if entry.is_dir():
                yield from _files(folder / entry.name, f"{prefix}{entry.name}/")
            else:
                yield f"{prefix}{entry.name}", entry.stat().st_size


def content_digest(path: Path) -> str:
    """Return the SHA-256 of a file that the user gave.

    Raises
    ------
    DataError
        If the file cannot be read.
    """
    try:
        found = path.stat()
        return _content_digest(path, found.st_size, found.st_mtime_ns)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).") from error


@cache
def _content_digest(path: Path, _size: int, _changed: int) -> str:
    return sha256(path)


def published(task: TaskCard, parameter: str, model: str) -> str:
    """Return the path of the published weights of a model, from which a task starts.

    Raises
    ------
    UsageError
        If the task declares no published weights for the model.
    DataError
        If the file of the weights does not exist.
    """
    known = task.declared.published
    ways = f"give a file with --set {task.name}.{parameter}=FILE, or use =random"
    if model not in known:
        raise UsageError(
            f"The task {task.name} starts from published weights, which exist only for "
            f"{', '.join(known)} (got {model}): {ways}."
        )
    path = weights_home() / known[model].name
    if not path.exists():
        raise DataError(
            f"The task {task.name} starts {model} from the published weights "
            f"{known[model].name}, which are not in {path.parent}. Get them with `mixbench data "
            f"get {task.declared.data.name}`, or {ways}."
        )
    return str(path)


def _combined(digests: dict[str, str]) -> str:
    text = "".join(f"{name}={value};" for name, value in sorted(digests.items()))
    return hashlib.sha256(text.encode()).hexdigest()
