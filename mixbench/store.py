"""Where things lie, and how they get there whole.

::

    STORE/stages/KEY/    a finished stage: its files and manifest.json; never changed
    STORE/work/KEY/      a stage in progress: spec.json, checkpoints, progress.jsonl, failure.json
    STORE/logs/KEY.txt   what the stage's processes printed
    STORE/records/       one JSON record per cell
    STORE/runs/          one JSON file per command, with its plan
    STORE/damaged/       what was found not to be what was written

A stage is finished exactly if ``stages/KEY/manifest.json`` exists. Everything is written beside
its place, flushed to the disk and renamed; the first writer wins.
"""

import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mixbench.errors import Damaged, MixbenchError, naming_full_disk
from mixbench.lease import Lease

SMALL = 1 << 20  # bytes up to which a file is hashed whenever its stage is looked at


def now() -> str:
    """Return the time as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def sha256(path: Path) -> str:
    """Return the digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush_to_disk(path: Path) -> None:
    """Have the operating system write a file or folder out."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        temporary.write_bytes(content)
        flush_to_disk(temporary)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, content: Any) -> None:
    """Write JSON so that it is there whole or not at all."""
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    write_bytes(path, f"{text}\n".encode())


def read_json(path: Path) -> Any:
    """Read a JSON file of the store.

    Raises
    ------
    Damaged
        If it is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise Damaged(f"{path} is damaged: {error}.") from error


class Store:
    """A folder of finished and running stages and of records."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().resolve()

    def folder(self, key: str) -> Path:
        """Return where a finished stage lies."""
        return self.root / "stages" / key

    def work(self, key: str) -> Path:
        """Return where a running stage leaves what it needs to continue."""
        return self.root / "work" / key

    def log(self, key: str) -> Path:
        """Return what the stage's processes print into."""
        return self.root / "logs" / f"{key}.txt"

    @property
    def records(self) -> Path:
        """Where the records lie."""
        return self.root / "records"

    @property
    def runs(self) -> Path:
        """Where the plans of past commands lie."""
        return self.root / "runs"

    def open(self) -> None:
        """Make the store's folders.

        Raises
        ------
        MixbenchError
            If the place cannot be written to.
        OSError
            If the disk is full.
        """
        try:
            for name in ("stages", "work", "logs", "records", "runs"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
                os.utime(self.root / name)
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise
            raise MixbenchError(
                f"The store {self.root} cannot be written to ({error.strerror}). "
                "Give another folder with --store."
            ) from error

    def finished_keys(self) -> list[str]:
        """Return the keys of all finished stages, oldest first."""
        manifests = (self.root / "stages").glob("*/manifest.json")
        return [path.parent.name for path in sorted(manifests, key=lambda p: p.stat().st_mtime)]

    def finished(self, key: str) -> bool:
        """Tell whether a stage is finished."""
        return (self.folder(key) / "manifest.json").exists()

    def manifest(self, key: str) -> dict[str, Any]:
        """Return a finished stage's manifest."""
        manifest: dict[str, Any] = read_json(self.folder(key) / "manifest.json")
        return manifest

    def path(self, key: str, name: str) -> Path:
        """Return a file of a finished stage, after checking its content.

        Raises
        ------
        Damaged
            If it is not what was written. The stage is put aside, so that it is computed again.
        """
        self.check(key, [name])
        return self.folder(key) / name

    def check(self, key: str, names: Iterable[str] | None = None) -> None:
        """Check the content of some files of a finished stage, or of all.

        Raises
        ------
        Damaged
            If one is not what was written. The stage is put aside, so that it is computed again.
        """
        if not self.finished(key):
            raise Damaged(f"{self.folder(key)} is gone; its stage must be computed again.")
        files = self.manifest(key)["files"]
        for name in files if names is None else names:
            path = self.folder(key) / name
            if name not in files or not path.exists() or sha256(path) != files[name]["sha256"]:
                self.put_aside(key)
                raise Damaged(f"{path} is not what was written; its stage must be computed again.")

    def damage(self, key: str) -> str:
        """Say what is wrong with a finished stage, or return an empty text.

        Sizes are compared for all files, contents for small ones.
        """
        folder = self.folder(key)
        try:
            files = self.manifest(key)["files"]
        except (Damaged, KeyError, TypeError):
            return f"{folder / 'manifest.json'} is damaged"
        for name, written in files.items():
            path = folder / name
            size = path.stat().st_size if path.exists() else -1
            if size != written["bytes"]:
                return f"{path} is truncated or missing"
            if size <= SMALL and sha256(path) != written["sha256"]:
                return f"{path} is damaged"
        return ""

    def put_aside(self, key: str) -> Path:
        """Move a finished stage away, so that it counts as not finished; return where it lies."""
        aside = self.root / "damaged" / f"{key}.{uuid.uuid4().hex[:8]}"
        aside.parent.mkdir(exist_ok=True)
        with suppress(FileNotFoundError):  # another process may have been faster
            self.folder(key).rename(aside)
        return aside

    def publish(self, key: str, built: Path, manifest: Mapping[str, Any]) -> None:
        """Make a folder of files the finished stage, manifest last.

        If another process finished the same stage first, its result stays and this one goes.

        Raises
        ------
        OSError
            If the folder cannot be moved for another reason.
        """
        with naming_full_disk(self.root):
            names = sorted(p.relative_to(built).as_posix() for p in built.rglob("*") if p.is_file())
            files = {
                name: {"sha256": sha256(built / name), "bytes": (built / name).stat().st_size}
                for name in names
            }
            for name in names:
                flush_to_disk(built / name)
            write_json(built / "manifest.json", {**manifest, "files": files})
            flush_to_disk(built)
            try:
                built.rename(self.folder(key))
            except OSError:
                if not self.finished(key):
                    raise
                shutil.rmtree(built)
            flush_to_disk(self.folder(key).parent)

    def lease(self, key: str) -> Lease:
        """Return the lease that the process running a stage holds."""
        return Lease(self.root / "work" / f"{key}.lease")

    def running(self, key: str) -> bool:
        """Tell whether some process works on a stage now, here or elsewhere."""
        return self.lease(key).fresh()

    def progress(self, key: str) -> dict[str, Any]:
        """Return the last line of a stage's progress; empty if there is none."""
        path = self.work(key) / "progress.jsonl"
        try:
            lines = path.read_bytes()[-4096:].split(b"\n")[:-1]  # the last line may be half written
            return dict(json.loads(lines[-1])) if lines else {}
        except (FileNotFoundError, ValueError):  # just published, or a line that a full disk cut
            return {}

    def failure(self, key: str) -> dict[str, str]:
        """Return how a stage failed; empty if it did not."""
        path = self.work(key) / "failure.json"
        return dict(read_json(path)) if path.exists() else {}

    def cancel(self, key: str) -> None:
        """Ask whoever runs a stage, or will, to end it."""
        write_json(self.work(key) / "cancel.json", {"asked": now()})

    def cancelled(self) -> set[str]:
        """Return the stages that somebody asked to end."""
        return {path.parent.name for path in (self.root / "work").glob("*/cancel.json")}

    def exit_code(self, key: str) -> int | None:
        """Return the exit code that the last attempt at a stage left; None if it left none."""
        path = self.work(key) / "ended.json"
        return int(read_json(path)["code"]) if path.exists() else None

    def forget(self, key: str) -> None:
        """Remove a stage, finished or not."""
        for folder in (self.folder(key), self.work(key)):
            shutil.rmtree(folder, ignore_errors=True)

    def record_files(self) -> Iterator[Path]:
        """Yield the file of every record."""
        yield from sorted(self.records.glob("*/*/*.json"))
