"""Digests of file contents, cached by path, size and modification time."""

import hashlib
import sqlite3
from collections.abc import Callable, Hashable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from mixbench.datasets.archives import MD5_LENGTH, digest_of

CACHE_FROM = 1 << 22  # bytes; reading a smaller file takes no longer than a look into the cache
SETTLED_S = 2.0  # files that are newer may change without another modification time
TABLE = (
    "CREATE TABLE IF NOT EXISTS digests (path BLOB, algorithm TEXT, size INTEGER, "
    "modified_ns INTEGER, digest TEXT, PRIMARY KEY (path, algorithm))"
)
Digest = Callable[[Path], str]


@contextmanager
def cached_digests(cache: Path, like: str = "") -> Iterator[Digest]:
    """Yield a function that returns the digest of a file's content.

    Parameters
    ----------
    cache
        File of the cache. If it cannot be read or written, every digest is computed.
    like
        A digest of the wanted kind: MD5 or, by default, SHA-256.
    """
    algorithm = "md5" if len(like) == MD5_LENGTH else "sha256"
    known: sqlite3.Connection | None = None
    with suppress(sqlite3.Error, OSError):
        cache.parent.mkdir(parents=True, exist_ok=True)
        known = sqlite3.connect(cache, timeout=30)
        known.execute(TABLE)

    def digest(path: Path) -> str:
        status = path.stat()
        key = str(path).encode(errors="surrogateescape"), algorithm
        facts = status.st_size, status.st_mtime_ns
        if known is not None:
            with suppress(sqlite3.Error):
                row = known.execute(
                    "SELECT digest FROM digests WHERE path = ? AND algorithm = ? AND size = ? AND "
                    "modified_ns = ?", (*key, *facts),
                ).fetchone()  # fmt: skip
                if row:
                    return str(row[0])
        found = digest_of(path, like)
        age_s = datetime.now(UTC).timestamp() - status.st_mtime
        if known is not None and age_s > SETTLED_S:
            with suppress(sqlite3.Error):
                known.execute(
                    "INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?, ?)", (*key, *facts, found)
                )
        return found

    try:
        yield digest
    finally:
        if known is not None:
            with suppress(sqlite3.Error), closing(known):
                known.commit()


def content_digest(path: Path, cache: Path, like: str = "") -> str:
    """Return the digest of one file; large files are looked up in the cache."""
    found = path.stat()
    return _content_digest(path, found.st_size, found.st_mtime_ns, cache, like)


@lru_cache(maxsize=1024)
def _content_digest(path: Path, size: int, _modified_ns: int, cache: Path, like: str) -> str:
    if size < CACHE_FROM:
        return digest_of(path, like)
    with cached_digests(cache, like) as digest:
        return digest(path)


def equal_files(first: list[Path], second: list[Path], digest: Digest) -> list[tuple[Path, Path]]:
    """Return pairs of files with the same content, one of each list.

    Only files whose size and first bytes occur in both lists are read as a whole.
    """
    candidates = _by(first, lambda path: path.stat().st_size)
    others = _by(second, lambda path: path.stat().st_size)
    shared = [size for size in candidates if size in others]
    found = []
    for size in shared:
        heads, other_heads = _by(candidates[size], _head), _by(others[size], _head)
        for head in heads.keys() & other_heads.keys():
            whole, other = _by(heads[head], digest), _by(other_heads[head], digest)
            found += [(whole[d][0], path) for d in whole.keys() & other.keys() for path in other[d]]
    return sorted(found)


def repeated_files(paths: list[Path], digest: Digest) -> list[tuple[Path, Path]]:
    """Return pairs of files of a list with the same content; only equal sizes are read."""
    sizes = _by(paths, lambda path: path.stat().st_size)
    groups = [
        same for some in sizes.values() if len(some) > 1 for same in _by(some, digest).values()
    ]
    return sorted((same[0], other) for same in groups for other in same[1:])


def _by(paths: list[Path], key: Callable[[Path], Hashable]) -> dict[Hashable, list[Path]]:
    groups: dict[Hashable, list[Path]] = {}
    for path in paths:
        groups.setdefault(key(path), []).append(path)
    return groups


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.blake2b(file.read(1 << 14), digest_size=16).digest()
