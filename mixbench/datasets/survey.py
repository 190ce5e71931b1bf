"""Survey of a data folder: what each part of the data reads, and the digests that identify it.

A single file is identified by its content, a folder by the paths and sizes of its files, because a
survey runs before every run and a folder may hold a million images; the user's own images, about
which nothing is published, are identified by content. Modification times are part of the `state` of
a part, which guards against a change between planning and publication, and never of a digest.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal

from mixbench.datasets.archives import digest_of
from mixbench.datasets.digests import Digest, cached_digests, content_digest
from mixbench.datasets.listing import IMAGE_SUFFIXES, ListedFile, files_in, is_image, subfolders
from mixbench.declare import Data
from mixbench.errors import DataError

DataPart = Literal["train", "test"]  # the training part includes the validation images
PARTS: tuple[DataPart, ...] = ("train", "test")


@dataclass(frozen=True)
class Contents:
    """The numbers of files of a data set that are read and skipped.

    Attributes
    ----------
    train
        Number of image files that only training and validation read.
    test
        Number of image files that only the test reads.
    shared
        Number of image files in folders that both read.
    folders
        Number of folders that directly contain images for training; for data in one folder per
        class, the number of classes.
    skipped
        Number of visible files that nothing reads, by suffix.
    """

    train: int = 0
    test: int = 0
    shared: int = 0
    folders: int = 0
    skipped: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        if not self.train + self.test + self.shared + sum(self.skipped.values()):
            return ""
        split = f"{self.train:,} + {self.test:,}" if self.train and self.test else ""
        split = split if not self.shared else ""
        texts = [f"{split or f'{self.train + self.test + self.shared:,}'} images"]
        if self.folders > 1:
            texts.insert(0, f"{self.folders:,} folders")
        if self.skipped:
            number, kinds = sum(self.skipped.values()), ", ".join(sorted(self.skipped))
            texts.append(f"{number:,} file{'s' if number > 1 else ''} skipped ({kinds})")
        return ", ".join(texts)


@dataclass(frozen=True)
class Survey:
    """The files of a data folder.

    Attributes
    ----------
    digests
        Digest of the content of each single file, by path.
    trees
        Number of files that are read and a digest of their paths and sizes, for each folder.
    parts
        Digest of the files that each part of the data reads.
    states
        Digest of paths, sizes and modification times of the files that each part reads.
    contents
        Numbers of image files and of skipped files.
    """

    digests: Mapping[str, str]
    trees: Mapping[str, tuple[int, str]]
    parts: Mapping[DataPart, str]
    states: Mapping[DataPart, str]
    contents: Contents

    @property
    def digest(self) -> str:
        """Digest of all files."""
        return _combined({**self.digests, **{name: d for name, (_, d) in self.trees.items()}})


def survey(data: Data, folder: Path, cache: Path) -> Survey:
    """Return the survey of a data folder.

    Parameters
    ----------
    data
        Declaration of the data set.
    folder
        Folder of its files.
    cache
        File of the cached content digests.

    Raises
    ------
    DataError
        If a file or folder is missing or cannot be read.
    """
    found = _Reading(data, folder)
    for name, official in data.files.items():
        found.add_file(name, official, cache)
    with cached_digests(cache) if data.own else nullcontext() as digest:
        for name in data.file_counts:
            found.add_tree(name, digest)
    if data.own and "." not in data.file_counts:  # nobody has said what else belongs to it
        found.skip_rest()
    return found.survey()


def state_of(data: Data, folder: Path, part: DataPart, cache: Path) -> str:
    """Return the state of a part as in `Survey.states`; what the other part reads is not listed.

    Raises
    ------
    DataError
        As for `survey`.
    """
    found = _Reading(data, folder)
    for name, official in data.files.items():
        if part in parts_of(data, name):
            found.add_file(name, official, cache)
    for name in data.file_counts:
        if part in parts_of(data, name):
            found.add_tree(name, None)
    return found.survey().states[part]


def tree(folder: Path, data: Data) -> tuple[int, str]:
    """Return the number of files under a folder that are read, and a digest of paths and sizes."""
    digest, number = hashlib.sha256(), 0
    for file in files_in(folder):
        if is_read(file, data):
            digest.update(_line(file.name, file.size))
            number += 1
    return number, digest.hexdigest()


def pinned_digest(data: Data) -> str:
    """Return the digest of all files of the official data; empty unless all have published ones."""
    pinned = all(data.files.values()) and not data.file_counts
    return _combined(data.files) if pinned else ""


def contents_digest(folder: Path) -> str:
    """Return a digest of the contents of a folder's files, as in `Data.content_digests`."""
    return _contents_digest(folder, folder_state(folder))


@lru_cache
def _contents_digest(folder: Path, _state: str) -> str:
    names = sorted(file.name for file in files_in(folder))
    lines = (f"{digest_of(folder / name, '')}  {name}\n" for name in names)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def folder_digest(folder: Path, cache: Path) -> str:
    """Return a digest of the paths and sizes of a folder's images and the contents of others."""
    digest = hashlib.sha256()
    for file in files_in(folder):
        content = "" if is_image(file.name) else content_digest(folder / file.name, cache)
        digest.update(_line(file.name + content, file.size))
    return digest.hexdigest()


def folder_state(folder: Path) -> str:
    """Return a digest of the paths, sizes and modification times of the files in a folder."""
    digest = hashlib.sha256()
    for file in files_in(folder):
        digest.update(_line(*file))
    return digest.hexdigest()


def files_of(data: Data, folder: Path) -> Iterator[tuple[Path, tuple[DataPart, ...]]]:
    """Yield every file that identifies the data, and the parts that read it."""
    for name in data.files:
        yield folder / name, parts_of(data, name)
    listed = {part: _listed(data, folder, part) for part in PARTS}
    for name in data.file_counts:
        for file in files_in(folder / name):
            if is_read(file, data):
                yield folder / name / file.name, _owners(file, parts_of(data, name), listed)


def images_of(data: Data, folder: Path, part: DataPart, *, shared: bool = False) -> list[Path]:
    """Return the image files that one part reads alone, or with those that both read (`shared`)."""
    return [
        path
        for path, owners in files_of(data, folder)
        if (owners == (part,) or (shared and part in owners)) and is_image(path.name)
    ]


def is_read(file: ListedFile, data: Data) -> bool:
    """Return whether a file of a folder is read: an image, or one of the declared suffixes.

    Images of the user's own are read in class folders only.
    """
    if data.own and "/" not in file.name:
        return False
    return file.suffix in IMAGE_SUFFIXES or file.suffix in data.suffixes


def parts_of(data: Data, name: str) -> tuple[DataPart, ...]:
    """Return the parts that read a declared file or folder."""
    declared = data.parts.get(name)
    return PARTS if declared is None else tuple(p for p in PARTS if declared.startswith(p))


def _listed(data: Data, folder: Path, part: DataPart) -> set[str]:
    """Return the names in the lists of a part, without slashes at the start and without suffix."""
    names: set[str] = set()
    for path, declared in data.parts.items():
        if declared == f"{part} list":
            try:
                lines = (folder / path).read_text(encoding="utf-8-sig", errors="replace")
            except OSError as error:
                raise DataError(f"{folder / path} cannot be read ({error.strerror}).") from error
            names |= {_stem(line.strip().replace("\\", "/").lstrip("/")) for line in
                      lines.splitlines()}  # fmt: skip
    return names


def _stem(name: str) -> str:
    """Return a path without the suffix of an image or annotation."""
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in IMAGE_SUFFIXES | {".xml"} else name


def _owners(
    file: ListedFile, readers: tuple[DataPart, ...], listed: Mapping[DataPart, set[str]]
) -> tuple[DataPart, ...]:
    """Return the parts that read a file: the one whose list alone has it, else all readers."""
    if len(readers) == 1 or not any(listed.values()):
        return readers
    having = tuple(part for part in readers if _stem(file.name) in listed[part])
    return having if len(having) == 1 else readers


class _Reading:
    """A survey in progress."""

    def __init__(self, data: Data, folder: Path) -> None:
        self._data, self._folder = data, folder
        self._digests: dict[str, str] = {}
        self._trees: dict[str, tuple[int, str]] = {}
        self._read: dict[DataPart, dict[str, str]] = {part: {} for part in PARTS}
        self._states = {part: hashlib.sha256() for part in PARTS}
        self._images: Counter[tuple[DataPart, ...]] = Counter()
        self._skipped: Counter[str] = Counter()
        self._folders: set[str] = set()

    @cached_property
    def _listed(self) -> dict[DataPart, set[str]]:
        return {part: _listed(self._data, self._folder, part) for part in PARTS}

    def add_file(self, name: str, official: str, cache: Path) -> None:
        """Read a single file."""
        path = self._folder / name
        try:
            digest, found = content_digest(path, cache, official), path.stat()
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error.strerror}).") from error
        self._digests[name] = digest
        for part in parts_of(self._data, name):
            self._read[part][name] = digest
            self._states[part].update(_line(name, found.st_size, found.st_mtime_ns))

    def add_tree(self, tree: str, content: Digest | None) -> None:
        """List the files of a folder; with `content`, their digests identify them, not their sizes.

        Sizes alone do not tell the user's own images apart: many formats are not compressed.
        """
        readers, number = parts_of(self._data, tree), 0
        whole, own = hashlib.sha256(), {part: hashlib.sha256() for part in readers}
        for file in files_in(self._folder / tree):
            if not is_read(file, self._data):
                self._skipped[file.suffix or "without suffix"] += 1
                continue
            said = content(self._folder / tree / file.name) if content else ""
            line, number = _line(file.name + said, file.size), number + 1
            whole.update(line)
            owners = _owners(file, readers, self._listed)
            for part in owners:
                own[part].update(line)
                self._states[part].update(_line(f"{tree}/{file.name}", *file[1:]))
            if file.suffix in IMAGE_SUFFIXES:
                self._images[owners] += 1
                if "train" in owners:
                    self._folders.add(f"{tree}/{file.name.rpartition('/')[0]}")
        self._trees[tree] = number, whole.hexdigest()
        for part, digest in own.items():
            self._read[part][tree] = digest.hexdigest()

    def skip_rest(self) -> None:
        """Count the images in folders that are not declared."""
        for name in subfolders(self._folder):
            if name not in self._data.file_counts:
                images = sum(is_image(file.name) for file in files_in(self._folder / name))
                self._skipped.update({f"images in {name}/": images} if images else {})

    def survey(self) -> Survey:
        """Return the finished survey."""
        return Survey(
            self._digests,
            self._trees,
            {part: _combined(found) for part, found in self._read.items()},
            {part: state.hexdigest() for part, state in self._states.items()},
            Contents(
                self._images["train",],
                self._images["test",],
                self._images[PARTS],
                len(self._folders),
                dict(sorted(self._skipped.items())),
            ),
        )


def _line(name: str, *numbers: int) -> bytes:
    """Return a file's line in a digest; names that are not UTF-8 keep their bytes."""
    return f"{name}={','.join(map(str, numbers))};".encode(errors="surrogateescape")


def _combined(digests: Mapping[str, str]) -> str:
    text = "".join(f"{name}={value};" for name, value in sorted(digests.items()))
    return hashlib.sha256(text.encode()).hexdigest()
