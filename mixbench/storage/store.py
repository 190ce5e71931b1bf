"""The store: a folder of finished stages, stages in progress, logs, records and runs.

::

    STORE/stages/KEY/    a finished stage: its files, manifest.json and its digest; never changed
    STORE/work/KEY/      a stage in progress: spec.json, checkpoints, progress.jsonl, failure.json
    STORE/logs/KEY.txt   what the stage's processes printed
    STORE/records/       one JSON record per cell
    STORE/runs/          one JSON file per command, with its plan
    STORE/data/          which data sets have passed which checks
    STORE/damaged/       finished stages whose files did not match their digests

A stage is finished if and only if ``stages/KEY/manifest.json`` exists. Everything is written to a
temporary path, flushed to the disk and renamed; the first writer wins.
"""

import errno
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from mixbench.errors import (
    Damaged,
    DamagedStage,
    MixbenchError,
    UsageError,
    naming_full_disk,
    printable,
)
from mixbench.storage.files import flush_to_disk, now, sha256, write_bytes, write_json
from mixbench.storage.lease import Lease
from mixbench.storage.manifest import MANIFESTS, FileDigest, Manifest
from mixbench.storage.notes import (
    EXITS,
    FAILURES,
    PROGRESS,
    RUNS,
    Exit,
    Failure,
    Progress,
    RunNote,
)
from mixbench.storage.spec import SPECS, StageSpec

SEAL = "manifest.sha256"  # digest of manifest.json, which has those of all other files
SMALL = 1 << 20  # bytes up to which `Store.damage` hashes a file
LAST_LINES = 4096  # bytes at the end of progress.jsonl, which has a line for every half second

# Files in a stage's work folder from which it continues: of trainings, searches and predictions.
CHECKPOINTS = ("checkpoint-*.pt", "scratch/*", "predictions/*/*", "features/*/*")


class Store:
    """A store of stages and records in a folder.

    Parameters
    ----------
    root
        Folder of the store.

    Raises
    ------
    UsageError
        If the path is not valid UTF-8, because records and logs name paths in the store.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().resolve()
        if printable(str(self.root)) != str(self.root):
            raise UsageError(
                f"The path of a store must be UTF-8: choose another (got {self.root})."
            )

    def folder(self, key: str) -> Path:
        """Return the folder of a finished stage."""
        return self.root / "stages" / key

    def work(self, key: str) -> Path:
        """Return the folder in which a stage in progress keeps its checkpoints and progress."""
        return self.root / "work" / key

    def has_checkpoint(self, key: str) -> bool:
        """Return whether a stage has left a file from which it continues."""
        work = self.work(key)
        return any(any(work.glob(pattern)) for pattern in CHECKPOINTS)

    def log(self, key: str) -> Path:
        """Return the log file of a stage's processes."""
        return self.root / "logs" / f"{key}.txt"

    @property
    def records(self) -> Path:
        """The folder of the records."""
        return self.root / "records"

    @property
    def runs(self) -> Path:
        """The folder of the plans of past and current runs."""
        return self.root / "runs"

    def data_note(self, data_key: str, check: str) -> Path:
        """Return the file that exists if data with a `Stage.data_key` has passed a check.

        That of the check ``duplicates`` contains their number.
        """
        return self.root / "data" / f"{data_key}.{check}"

    def open(self) -> None:
        """Create the store's folders.

        Raises
        ------
        MixbenchError
            If the folder is not writable.
        OSError
            If the disk is full.
        """
        try:
            for name in ("stages", "work", "logs", "records", "runs", "data"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
                os.utime(self.root / name)
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise
            raise MixbenchError(
                f"The store {self.root} cannot be written to ({error.strerror}). "
                "Choose another folder with --store."
            ) from error

    def finished_keys(self) -> list[str]:
        """Return the keys of all finished stages, oldest first."""
        manifests = (self.root / "stages").glob("*/manifest.json")
        return [path.parent.name for path in sorted(manifests, key=lambda p: p.stat().st_mtime)]

    def finished(self, key: str) -> bool:
        """Return whether a stage is finished."""
        return (self.folder(key) / "manifest.json").exists()

    def manifest(self, key: str) -> Manifest:
        """Return a finished stage's manifest.

        Raises
        ------
        Damaged
            If it is not what was written, or of another version.
        """
        path = self.folder(key) / "manifest.json"
        content, seal = path.read_bytes(), path.with_name(SEAL)
        # Stages from before 2026-12 have none.
        if seal.exists() and seal.read_text() != hashlib.sha256(content).hexdigest():
            raise Damaged(f"{path} is damaged: it differs from what was written.")
        return MANIFESTS.parse(content, str(path))

    def manifests(self) -> Iterator[Manifest]:
        """Yield the manifests of all finished stages, except unreadable ones of other versions."""
        for key in self.finished_keys():
            with suppress(Damaged):
                yield self.manifest(key)

    def checked(self, key: str, name: str) -> Path:
        """Return the path of a file of a finished stage, after checking the file's digest.

        Raises
        ------
        DamagedStage
            If the file is missing or does not match its digest.
        """
        self.check(key, [name])
        return self.folder(key) / name

    def check(self, key: str, names: Iterable[str] | None = None) -> None:
        """Check the digests of some or all files of a finished stage.

        Parameters
        ----------
        key
            Key of the stage.
        names
            Paths of the files to check, relative to the stage's folder; all files by default.

        Raises
        ------
        DamagedStage
            If a file is missing or does not match its digest.
        """
        if not self.finished(key):
            raise DamagedStage(self.root, key, self.folder(key))
        files = self.manifest(key).files
        for name in files if names is None else names:
            path = self.folder(key) / name
            if name not in files or not path.exists() or sha256(path) != files[name].sha256:
                raise DamagedStage(self.root, key, path)

    def damage(self, key: str, *, every_digest: bool = False) -> str:
        """Return a description of the first damaged file of a finished stage, or an empty text.

        The sizes of all files are checked, and the digests of all or of those of at most 1 MiB.
        """
        folder = self.folder(key)
        try:
            files = self.manifest(key).files
        except Damaged:
            return f"{folder / 'manifest.json'} is damaged"
        for name, written in files.items():
            path = folder / name
            size = path.stat().st_size if path.exists() else -1
            if size != written.bytes:
                return f"{path} is truncated or missing"
            if (every_digest or size <= SMALL) and sha256(path) != written.sha256:
                return f"{path} is damaged"
        return ""

    def quarantine(self, key: str) -> Path:
        """Move the folder of a stage to ``damaged/``, and return its new path."""
        aside = self.root / "damaged" / f"{key}.{uuid.uuid4().hex[:8]}"
        aside.parent.mkdir(exist_ok=True)
        with suppress(FileNotFoundError):  # another process may have moved it already
            self.folder(key).rename(aside)
        return aside

    def publish(self, built: Path, manifest: Manifest) -> None:
        """Write the manifest into a folder of files, and make it the finished stage.

        If another process has finished the same stage first, its result is kept and this one is
        removed.

        Parameters
        ----------
        built
            Folder with the stage's files.
        manifest
            Manifest of the stage; its `files` are computed here.

        Raises
        ------
        OSError
            If the folder cannot be moved for another reason.
        """
        with naming_full_disk(self.root):
            names = sorted(p.relative_to(built).as_posix() for p in built.rglob("*") if p.is_file())
            files = {
                name: FileDigest(sha256(built / name), (built / name).stat().st_size)
                for name in names
            }
            for name in names:
                flush_to_disk(built / name)
            # The manifest is complete before it makes the folder a finished stage.
            unnamed = built / ".manifest"
            MANIFESTS.write(unnamed, replace(manifest, files=files))
            write_bytes(built / SEAL, sha256(unnamed).encode())
            unnamed.rename(built / "manifest.json")
            flush_to_disk(built)
            try:
                built.rename(self.folder(manifest.key))
            except OSError:
                if self.finished(manifest.key):
                    shutil.rmtree(built)
                else:  # a folder without its manifest, such as an incomplete copy
                    self.quarantine(manifest.key)
                    built.rename(self.folder(manifest.key))
            flush_to_disk(self.folder(manifest.key).parent)

    def lease(self, key: str) -> Lease:
        """Return the lock that a stage's process holds while it runs."""
        return Lease(self.root / "work" / f"{key}.lease")

    def running(self, key: str) -> bool:
        """Return whether a process on any machine is running a stage now."""
        return self.lease(key).fresh()

    def spec(self, key: str) -> StageSpec:
        """Return the spec with which a stage was last started."""
        return SPECS.read(self.work(key) / "spec.json")

    def write_spec(self, key: str, spec: StageSpec) -> None:
        """Write the spec for a stage's process, and remove the outcome of earlier attempts."""
        work = self.work(key)
        for name in ("failure.json", "ended.json", "cancel.json"):
            (work / name).unlink(missing_ok=True)
        SPECS.write(work / "spec.json", spec)

    def progress(self, key: str) -> Progress | None:
        """Return a stage's latest progress; None if there is none."""
        path = self.work(key) / "progress.jsonl"
        try:
            with path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(size - LAST_LINES, 0))
                lines = file.read().split(b"\n")[:-1]  # the last line may be incomplete
            return PROGRESS.parse(lines[-1], str(path)) if lines else None
        except (FileNotFoundError, Damaged):  # just published, or truncated by a full disk
            return None

    def silence_s(self, key: str) -> float:
        """Return the seconds since a running stage wrote a line of progress, or since its start.

        The time stamps of its files are compared with that of its last heartbeat, which is 5 s old
        at most, because the clocks of machines differ.
        """
        with suppress(OSError):
            files = [self.work(key) / name for name in ("progress.jsonl", "spec.json")]
            written = max(path.stat().st_mtime for path in files if path.exists())
            return max(self.lease(key).beat_at() - written, 0.0)
        return 0.0

    def failure(self, key: str) -> Failure | None:
        """Return the failure of a stage; None if it did not fail."""
        path = self.work(key) / "failure.json"
        return FAILURES.read(path) if path.exists() else None

    def write_failure(self, key: str, failure: Failure) -> None:
        """Write the failure of a stage, which the launcher reads."""
        FAILURES.write(self.work(key) / "failure.json", failure)

    def cancel(self, key: str) -> None:
        """Write a cancellation request, which the stage's launcher reads."""
        write_json(self.work(key) / "cancel.json", {"asked": now()})

    def cancelled(self) -> set[str]:
        """Return the keys of the stages with a cancellation request."""
        return {path.parent.name for path in (self.root / "work").glob("*/cancel.json")}

    def exit_code(self, key: str) -> int | None:
        """Return the exit code of the last attempt at a stage; None if it wrote none."""
        path = self.work(key) / "ended.json"
        return EXITS.read(path).code if path.exists() else None

    def write_exit_code(self, key: str, code: int) -> None:
        """Write the exit code of an attempt, for engines that cannot observe it."""
        EXITS.write(self.work(key) / "ended.json", Exit(code))

    def note_run(self, note: RunNote) -> Path:
        """Write a run's plan for `status`, `logs` and `cancel` in other shells; return its path."""
        stamp = note.created.replace(":", "").replace("-", "")
        path = self.runs / f"{stamp}-{uuid.uuid4().hex[:8]}.json"
        RUNS.write(path, note)
        return path

    def noted_runs(self) -> list[Path]:
        """Return the plan files of all runs, oldest first."""
        return sorted(self.runs.glob("*.json"))

    @staticmethod
    def launcher_lease(note: Path) -> Lease:
        """Return the lock that the launcher of a run holds while it runs."""
        return Lease(note.with_suffix(".lease"))

    def forget(self, key: str) -> None:
        """Remove the files of a stage, finished or in progress."""
        for folder in (self.folder(key), self.work(key)):
            shutil.rmtree(folder, ignore_errors=True)

    def record_files(self) -> Iterator[Path]:
        """Yield the path of every record, in sorted order; folders that are links have none."""
        for path in sorted(self.records.glob("*/*/*.json")):
            folders = (path.parent, path.parent.parent)
            if path.is_file() and not any(folder.is_symlink() for folder in folders):
                yield path
