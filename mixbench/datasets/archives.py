"""Archives of published data: fetched, checked and unpacked, without trusting what is in them."""

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
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from mixbench.declare import Archive
from mixbench.errors import DataError

Tell = Callable[[int, int], None]  # bytes done, and of how many (0: not known)
BLOCK = 1 << 20
MD5_LENGTH = 32
TIMEOUT_S = 60.0
CONTINUED, NOTHING_LEFT = 206, 416  # answers of HTTP to a wish for the rest of a file
SYMBOLIC_LINK = 0o120000  # among the kinds of files that a mode tells
DAMAGE = (
    tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError,
    NotImplementedError, RuntimeError,
)  # fmt: skip


class Finding(NamedTuple):
    """What was found at a path of a data set's layout."""

    path: str
    ok: bool
    text: str


def digest_of(path: Path, like: str, tell: Tell = lambda _done, _of: None) -> str:
    """Return a file's MD5 or SHA-256, whichever `like` is."""
    digest = hashlib.new("md5" if len(like) == MD5_LENGTH else "sha256", usedforsecurity=False)
    size, done = path.stat().st_size, 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
            done += len(block)
            tell(done, size)
    return digest.hexdigest()


def check(path: Path, archive: Archive, tell: Tell = lambda _done, _of: None) -> None:
    """Compare a file with the published digest, or with as much of it as is published.

    Raises
    ------
    DataError
        If they differ.
    """
    found = digest_of(path, archive.digest, tell)
    if not found.startswith(archive.digest):
        raise DataError(
            f"{path} is not the published {archive.name}: its checksum must be {archive.digest} "
            f"(got {found}). Remove it and fetch it again."
        )


def download(archive: Archive, folder: Path, tell: Tell) -> Path:
    """Fetch an archive, going on where an earlier attempt stopped; return its path.

    Raises
    ------
    DataError
        If it cannot be fetched, or is not what was published.
    """
    path = folder / archive.name
    partial = path.with_name(f"{archive.name}.part")
    with _naming_url(archive.url):
        _fetch(archive.url, partial, tell)
    size = partial.stat().st_size
    if size < archive.bytes:
        raise DataError(
            f"{archive.url} broke off at {size} of {archive.bytes} bytes; the same command goes on "
            "from there."
        )
    try:
        check(partial, archive)
    except DataError:
        partial.unlink()
        raise
    return partial.rename(path)


@contextmanager
def _naming_url(url: str) -> Iterator[None]:
    """Name what cannot be fetched; a full disk is another's to name."""
    try:
        yield
    except urllib.error.HTTPError as error:
        error.close()  # it is the answer, too
        if error.code != NOTHING_LEFT:
            raise DataError(f"{url} answers: {error.code} {error.reason}.") from error
    except (OSError, HTTPException) as error:
        if getattr(error, "errno", None) in {errno.ENOSPC, errno.EDQUOT}:
            raise
        reason = getattr(error, "reason", error)
        raise DataError(
            f"{url} cannot be fetched ({reason}); the same command goes on from here."
        ) from error


def _fetch(url: str, partial: Path, tell: Tell) -> None:
    """Append to a file what it lacks of a URL's content."""
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


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a tar or zip archive of plain files and folders.

    Raises
    ------
    DataError
        If it is damaged, or holds a link or a name that leads out of `folder`.
    """
    if zipfile.is_zipfile(archive):
        with _naming_damage(archive), zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                kind = info.external_attr >> 16 & 0o170000
                admit(archive, info.filename, plain=kind != SYMBOLIC_LINK)
            opened.extractall(folder)
        return
    with opened_tar(archive) as tar:
        unpack_tar(tar, archive, folder)


@contextmanager
def opened_tar(archive: Path) -> Iterator[tarfile.TarFile]:
    """Open a tar archive, and name it when it turns out to be damaged.

    Raises
    ------
    DataError
        If it is damaged.
    """
    with _naming_damage(archive), tarfile.open(archive) as tar:
        yield tar


def unpack_tar(tar: tarfile.TarFile, archive: Path, folder: Path) -> None:
    """Unpack an opened tar archive of plain files and folders.

    Parameters
    ----------
    archive
        The file to name in an error.

    Raises
    ------
    DataError
        If it holds a link or a name that leads out of `folder`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for member in tar:
        admit(archive, member.name, plain=member.isfile() or member.isdir())
        tar.extract(member, folder, filter="data")


@contextmanager
def _naming_damage(archive: Path) -> Iterator[None]:
    try:
        yield
    except DAMAGE as error:
        raise DataError(f"The archive {archive} is damaged: {error}.") from error


def admit(archive: Path, name: str, *, plain: bool) -> None:
    """Refuse a member that is neither file nor folder, or that would lie elsewhere.

    Raises
    ------
    DataError
        If it is.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts:
        raise DataError(f"The archive {archive} is refused: {name!r} leads out of its folder.")
    if not plain:
        raise DataError(f"The archive {archive} is refused: {name!r} is a link or a device.")
