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
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from mixbench.errors import Damaged, DamagedStage, MixbenchError, naming_full_disk
from mixbench.storage.files import flush_to_disk, now, sha256, write_json
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

SMALL = 1 << 20  # bytes up to which a file is hashed whenever its stage is looked at


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

    def manifest(self, key: str) -> Manifest:
        """Return a finished stage's manifest."""
        return MANIFESTS.read(self.folder(key) / "manifest.json")

    def checked(self, key: str, name: str) -> Path:
        """Return a file of a finished stage, after comparing its content with its digest.

        Raises
        ------
        DamagedStage
            If it is not what was written.
        """
        self.check(key, [name])
        return self.folder(key) / name

    def check(self, key: str, names: Iterable[str] | None = None) -> None:
        """Compare some files of a finished stage, or all, with their digests.

        Raises
        ------
        DamagedStage
            If one is not what was written.
        """
        if not self.finished(key):
            raise DamagedStage(key, self.folder(key))
        files = self.manifest(key).files
        for name in files if names is None else names:
            path = self.folder(key) / name
            if name not in files or not path.exists() or sha256(path) != files[name].sha256:
                raise DamagedStage(key, path)

    def damage(self, key: str) -> str:
        """Say what is wrong with a finished stage, or return an empty text.

        Sizes are compared for all files, contents for small ones.
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
            if size <= SMALL and sha256(path) != written.sha256:
                return f"{path} is damaged"
        return ""

    def quarantine(self, key: str) -> Path:
        """Move a finished stage away, so that it counts as not finished; return where it lies."""
        aside = self.root / "damaged" / f"{key}.{uuid.uuid4().hex[:8]}"
        aside.parent.mkdir(exist_ok=True)
        with suppress(FileNotFoundError):  # another process may have been faster
            self.folder(key).rename(aside)
        return aside

    def publish(self, built: Path, manifest: Manifest) -> None:
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
                name: FileDigest(sha256(built / name), (built / name).stat().st_size)
                for name in names
            }
            for name in names:
                flush_to_disk(built / name)
            MANIFESTS.write(built / "manifest.json", replace(manifest, files=files))
            flush_to_disk(built)
            try:
                built.rename(self.folder(manifest.key))
            except OSError:
                if not self.finished(manifest.key):
                    raise
                shutil.rmtree(built)
            flush_to_disk(self.folder(manifest.key).parent)

    def lease(self, key: str) -> Lease:
        """Return the lease that the process running a stage holds."""
        return Lease(self.root / "work" / f"{key}.lease")

    def running(self, key: str) -> bool:
        """Tell whether some process works on a stage now, here or elsewhere."""
        return self.lease(key).fresh()

    def spec(self, key: str) -> StageSpec:
        """Return the spec with which a stage was started last."""
        return SPECS.read(self.work(key) / "spec.json")

    def write_spec(self, key: str, spec: StageSpec) -> None:
        """Leave what a stage's process needs to know, and forget how earlier attempts ended."""
        work = self.work(key)
        for name in ("failure.json", "ended.json", "cancel.json"):
            (work / name).unlink(missing_ok=True)
        SPECS.write(work / "spec.json", spec)

    def progress(self, key: str) -> Progress | None:
        """Return the last line of a stage's progress; None if there is none."""
        path = self.work(key) / "progress.jsonl"
        try:
            lines = path.read_bytes()[-4096:].split(b"\n")[:-1]  # the last line may be half written
            return PROGRESS.parse(lines[-1], str(path)) if lines else None
        except (FileNotFoundError, Damaged):  # just published, or a line that a full disk cut
            return None

    def failure(self, key: str) -> Failure | None:
        """Return how a stage failed; None if it did not."""
        path = self.work(key) / "failure.json"
        return FAILURES.read(path) if path.exists() else None

    def write_failure(self, key: str, failure: Failure) -> None:
        """Leave how a stage failed where the launcher looks for it."""
        FAILURES.write(self.work(key) / "failure.json", failure)

    def cancel(self, key: str) -> None:
        """Ask whoever runs a stage, or will, to end it."""
        write_json(self.work(key) / "cancel.json", {"asked": now()})

    def cancelled(self) -> set[str]:
        """Return the stages that somebody asked to end."""
        return {path.parent.name for path in (self.root / "work").glob("*/cancel.json")}

    def exit_code(self, key: str) -> int | None:
        """Return the exit code that the last attempt at a stage left; None if it left none."""
        path = self.work(key) / "ended.json"
        return EXITS.read(path).code if path.exists() else None

    def write_exit_code(self, key: str, code: int) -> None:
        """Leave the exit code of an attempt, for launchers that do not see it."""
        EXITS.write(self.work(key) / "ended.json", Exit(code))

    def note_run(self, note: RunNote) -> Path:
        """Note a run, for `status`, `logs` and `cancel` in other shells; return its file."""
        stamp = note.created.replace(":", "").replace("-", "")
        path = self.runs / f"{stamp}-{uuid.uuid4().hex[:8]}.json"
        RUNS.write(path, note)
        return path

    def noted_runs(self) -> list[Path]:
        """Return the files of the noted runs, oldest first."""
        return sorted(self.runs.glob("*.json"))

    @staticmethod
    def launcher_lease(note: Path) -> Lease:
        """Return the lease that the launcher of a noted run holds as long as it lives."""
        return Lease(note.with_suffix(".lease"))

    def forget(self, key: str) -> None:
        """Remove a stage, finished or not."""
        for folder in (self.folder(key), self.work(key)):
            shutil.rmtree(folder, ignore_errors=True)

    def record_files(self) -> Iterator[Path]:
        """Yield the file of every record."""
        yield from sorted(self.records.glob("*/*/*.json"))
