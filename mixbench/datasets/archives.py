"""Download, verification and safe unpacking of archives of published data."""

import errno
import gzip
import hashlib
import lzma
import tarfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from mixbench.declare import Archive
from mixbench.errors import DataError

Tell = Callable[[int, int], None]  # bytes done, and total bytes (0: unknown)
BLOCK = 1 << 20
MD5_LENGTH = 32
TIMEOUT_S = 60.0
CONTINUED, NOTHING_LEFT = 206, 416  # HTTP status codes of a range request
MOST_MEMBERS = 10_000_000
SMALL = 1 << 30  # bytes that any archive may unpack to
RATIO = (
    100  # most unpacked bytes per byte; annotations in JSON shrink to a tenth, images not at all
)
SYMBOLIC_LINK = 0o120000  # the file type in a Unix mode
DAMAGE = (
    tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError,
    NotImplementedError, RuntimeError,
)  # fmt: skip


class Finding(NamedTuple):
    """The result of the check of one path of a data set's layout.

    Attributes
    ----------
    path
        Path of the file or folder, relative to the data's folder.
    ok
        Whether the path has the expected content.
    text
        Result of the check, for instance the digest or the reason of a failure.
    """

    path: str
    ok: bool
    text: str


def digest_of(path: Path, like: str, tell: Tell = lambda _done, _of: None) -> str:
    """Return the MD5 of a file if `like` has the length of an MD5, else its SHA-256."""
    digest = hashlib.new("md5" if len(like) == MD5_LENGTH else "sha256", usedforsecurity=False)
    size, done = path.stat().st_size, 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
            done += len(block)
            tell(done, size)
    return digest.hexdigest()


def check(path: Path, archive: Archive, tell: Tell = lambda _done, _of: None) -> None:
    """Compare the digest of a file with the published digest, or prefix, if there is one.

    Raises
    ------
    DataError
        If the digests differ.
    """
    found = digest_of(path, archive.digest, tell) if archive.digest else ""
    if not found.startswith(archive.digest):
        raise DataError(
            f"{path} is not the published {archive.name}: its checksum must be {archive.digest} "
            f"(got {found}). Remove it and download it again."
        )


def download(archive: Archive, folder: Path, tell: Tell) -> Path:
    """Download an archive, resuming an interrupted download, and return its path.

    Raises
    ------
    DataError
        If the download fails, or if the file differs from the published one.
    """
    path = folder / archive.name
    partial = path.with_name(f"{archive.name}.part")
    with _naming_url(archive.url):
        _fetch(archive.url, partial, tell)
    size = partial.stat().st_size
    if size < archive.bytes:
        raise DataError(
            f"{archive.url} sent only {size} of {archive.bytes} bytes. Run the same command again "
            "to resume the download."
        )
    try:
        check(partial, archive)
    except DataError:
        partial.unlink()
        raise
    return partial.rename(path)


@contextmanager
def _naming_url(url: str) -> Iterator[None]:
    """Convert download errors to `DataError`, except for a full disk, which the caller reports."""
    try:
        yield
    except urllib.error.HTTPError as error:
        error.close()  # the error holds the response
        if error.code != NOTHING_LEFT:
            raise DataError(f"{url} returned {error.code} {error.reason}.") from error
    except (OSError, HTTPException) as error:
        if getattr(error, "errno", None) in {errno.ENOSPC, errno.EDQUOT}:
            raise
        reason = getattr(error, "reason", error)
        raise DataError(
            f"{url} cannot be downloaded ({reason}). Run the same command again to resume."
        ) from error


def _fetch(url: str, partial: Path, tell: Tell) -> None:
    """Download the missing rest of a URL's content and append it to `partial`."""
    done = partial.stat().st_size if partial.exists() else 0
    headers = {"User-Agent": "mixbench"} | ({"Range": f"bytes={done}-"} if done else {})
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        if answer.status != CONTINUED:
            done = 0
        of = done + int(answer.headers.get("Content-Length") or 0)
        with partial.open("ab" if done else "wb") as file:
            while block := answer.read(BLOCK):
                file.write(block)
                done += len(block)
                tell(done, of)


@dataclass
class Unpacked:
    """What has been found in an archive so far, to refuse one that would fill the disk.

    Parameters
    ----------
    archive
        Path of the archive.
    """

    archive: Path
    members: int = 0
    bytes: int = 0

    def add(self, name: str, size: int, *, plain: bool) -> None:
        """Count a member of the archive before it is unpacked.

        Parameters
        ----------
        name
            Name of the member.
        size
            Unpacked size in bytes.
        plain
            Whether the member is a regular file or a folder.

        Raises
        ------
        DataError
            If the member is a link or a device, if its path leads outside of the target folder, or
            if the archive unpacks to far more than archives of images do.
        """
        admit(self.archive, name, plain=plain)
        self.members += 1
        self.bytes += size
        most = max(SMALL, RATIO * self.archive.stat().st_size)
        if self.members > MOST_MEMBERS or self.bytes > most:
            raise DataError(
                f"The archive {self.archive} is refused: it has over {MOST_MEMBERS:,} members, or "
                f"unpacks to over {most / 2**30:.1f} GiB, {RATIO} times its size."
            )


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a tar or zip archive of regular files and folders.

    Raises
    ------
    DataError
        If the archive is damaged or refused; see `Unpacked.add`.
    """
    if zipfile.is_zipfile(archive):
        counted = Unpacked(archive)
        with _naming_damage(archive), zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                kind = info.external_attr >> 16 & 0o170000
                counted.add(info.filename, info.file_size, plain=kind != SYMBOLIC_LINK)
            opened.extractall(folder)
        return
    with opened_tar(archive) as tar:
        unpack_tar(tar, archive, folder)


@contextmanager
def opened_tar(archive: Path) -> Iterator[tarfile.TarFile]:
    """Open a tar archive; reading it raises an error that names the archive if it is damaged.

    Raises
    ------
    DataError
        If the archive is damaged.
    """
    with _naming_damage(archive), tarfile.open(archive) as tar:
        yield tar


def unpack_tar(tar: tarfile.TarFile, archive: Path, folder: Path) -> None:
    """Unpack an opened tar archive of regular files and folders.

    Parameters
    ----------
    tar
        Opened archive.
    archive
        Path of the archive, for error messages.
    folder
        Folder into which to unpack; created if it does not exist.

    Raises
    ------
    DataError
        If the archive is refused; see `Unpacked.add`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    counted = Unpacked(archive)
    for member in tar:
        counted.add(member.name, member.size, plain=member.isfile() or member.isdir())
        tar.extract(member, folder, filter="data")


@contextmanager
def _naming_damage(archive: Path) -> Iterator[None]:
    try:
        yield
    except DAMAGE as error:
        raise DataError(f"The archive {archive} is damaged: {error}.") from error


def admit(archive: Path, name: str, *, plain: bool) -> None:
    """Raise an error for an archive member that is unsafe to unpack.

    Parameters
    ----------
    archive
        Path of the archive, for error messages.
    name
        Name of the member in the archive.
    plain
        Whether the member is a regular file or a folder.

    Raises
    ------
    DataError
        If the member is a link or a device, or if its path leads outside of the target folder.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts:
        raise DataError(f"The archive {archive} is refused: {name!r} is outside its folder.")
    if not plain:
        raise DataError(f"The archive {archive} is refused: {name!r} is a link or a device.")
