"""Where a task's data is read from, and the digest that says which data it is."""

import hashlib
import importlib.util
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Final

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
MARK = "mixbench-synthetic.json"  # lies in every folder of generated data


@dataclass(frozen=True)
class SyntheticMark:
    """What lies in a folder of generated data: what it was generated for, and what was written.

    Attributes
    ----------
    files
        The SHA-256 of single files.
    file_counts
        The number of files in each folder, and a digest of their names and sizes.
    """

    task: UnitIdentity
    amount: Synthetic
    files: Mapping[str, str]
    file_counts: Mapping[str, tuple[int, str]]


MARKS = Typed(SyntheticMark)


@dataclass(frozen=True)
class DataSource:
    """The data that a cell reads.

    Attributes
    ----------
    origin
        ``official`` data has the published digests, and where images lie in folders, the published
        numbers of them; ``modified`` data has others; ``synthetic`` data is generated.
    folder
        Where the files lie; None for data that a stage generates in the store.
    digest
        Of the content; empty for data that a stage generates, which the stage's key identifies.
    """

    origin: Origin
    folder: Path | None
    digest: str


def home(data: Data) -> Path:
    """Return where a data set lies unless the user says otherwise."""
    return _root() / (data.shares_folder_with or data.name)


def weights_home() -> Path:
    """Return where published weights of models lie."""
    return _root() / "weights"


def _root() -> Path:
    root = os.environ.get(VARIABLE)
    return Path(root).expanduser() if root else Path.home() / ".cache" / "mixbench"


@dataclass(frozen=True)
class DataSet:
    """A task's data, or one of its variants, with the parameters that choose it."""

    data: Data
    task: TaskCard
    parameters: Mapping[str, ParameterValue] = field(default_factory=dict)


def data_of(task: TaskCard, parameters: Mapping[str, ParameterValue]) -> Data:
    """Return a task's data: with several variants, the one that its parameters choose."""
    variant = parameters.get("variant", "")
    return task.declared.variants.get(str(variant), task.declared.data)


def data_sets_of(task: TaskCard) -> list[DataSet]:
    """Return a task's data, variant by variant, that of its default first.

    An evaluation without data of its own reads that of the task whose models it evaluates.
    """
    if task.declared.evaluates:
        subject = find("task", task.declared.evaluates)
        if task.declared.data == subject.declared.data:
            return data_sets_of(subject)
    data, variants = task.declared.data, task.declared.variants
    found = [DataSet(other, task, {"variant": name}) for name, other in variants.items()]
    return sorted(found, key=lambda one: one.data != data) or [DataSet(data, task)]


def data_sets_by_name() -> dict[str, list[DataSet]]:
    """Return every data set by its name, once for every task that reads it."""
    known: dict[str, list[DataSet]] = {}
    for name in paths("task"):
        for one in data_sets_of(find("task", name)):
            if one.task.name == name:
                known.setdefault(one.data.name, []).append(one)
    return known


def datasets_sharing_files(one: DataSet) -> list[DataSet]:
    """Return a task's data, and the same data of other tasks."""
    others = data_sets_by_name().get(one.data.name, [])
    return [one, *(other for other in others if other.task.name != one.task.name)]


def locate(
    task: TaskCard,
    asked: str | None,
    protocol: str = "",
    parameters: Mapping[str, ParameterValue] = MappingProxyType({}),
) -> DataSource:
    """Return the data that the user asked for: a folder, ``synthetic``, or what is installed.

    Parameters
    ----------
    parameters
        Of the task; they choose among the variants of its data.

    Raises
    ------
    DataError
        If there is no data at the place, or a file of it is missing.
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
        folder = folder.parent  # the data's own folder was named instead of the one that holds it
    try:
        return _source(data, folder)
    except DataError as error:
        names = ", ".join((*data.files, *data.file_counts))
        raise DataError(
            f"The task {task.name}: {error} Give the folder that holds {names} with --data PATH, "
            f"or generated images with --data {SYNTHETIC}."
        ) from error


def data_dir(data: Data) -> Path:
    """Return where data is looked for: an installed distribution, or its home."""
    spec = importlib.util.find_spec(data.package) if data.package else None
    if spec is not None and spec.submodule_search_locations:
        return Path(spec.submodule_search_locations[0]) / data.folder
    return home(data)


def _installed(task: TaskCard, data: Data) -> Path:
    """Return where the data lies."""
    place = data_dir(data)
    if all((place / name).exists() for name in (*data.files, *data.file_counts)):
        return place
    ways = [f"--protocol {protocol}" for protocol in task.declared.synthetic.protocols]
    raise DataError(
        f"The task {task.name} needs {data.name} ({data.url}), which is not at {place}. Fetch it "
        f"with `mixbench data get {data.name}`, name its folder with --data PATH, or take "
        f"generated images with {' or '.join((*ways, f'--data {SYNTHETIC}'))}."
    )


def _source(data: Data, folder: Path) -> DataSource:
    """Look at the files of a folder."""
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
    """Return how many files lie under a folder, and a digest of their names and sizes.

    The content of a million images is not read before every run: `mixbench data verify` does.

    Raises
    ------
    DataError
        If there is no such folder.
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
    """Yield every file's path below a folder and its size, in the order of names."""
    with os.scandir(folder) as entries:
        shown = (entry for entry in entries if not entry.name.startswith("."))  # file managers' own
        for entry in sorted(shown, key=lambda e: e.name):
            if entry.is_dir():
                yield from _files(folder / entry.name, f"{prefix}{entry.name}/")
            else:
                yield f"{prefix}{entry.name}", entry.stat().st_size


def content_digest(path: Path) -> str:
    """Return the digest of a file that the user named.

    Raises
    ------
    DataError
        If it cannot be read.
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
    """Return the path of the published weights of a model that a task starts from.

    Raises
    ------
    UsageError
        If none are known.
    DataError
        If they are not here.
    """
    known = task.declared.published
    ways = f"name a file with --set {task.name}.{parameter}=FILE, or take =random"
    if model not in known:
        raise UsageError(
            f"The task {task.name} starts from published weights, and knows those of "
            f"{', '.join(known)}: for {model} {ways}."
        )
    path = weights_home() / known[model].name
    if not path.exists():
        raise DataError(
            f"The task {task.name} starts {model} from the published weights "
            f"{known[model].name}, which are not in {path.parent}. Fetch them with `mixbench data "
            f"get {task.declared.data.name}`, or {ways}."
        )
    return str(path)


def _combined(digests: dict[str, str]) -> str:
    text = "".join(f"{name}={value};" for name, value in sorted(digests.items()))
    return hashlib.sha256(text.encode()).hexdigest()
