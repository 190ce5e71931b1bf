"""A lock file with heartbeat, which ensures that only one process works on a stage.

Locks of the operating system may not work between machines that share a disk. The lock is a file
that contains a counter, which the holder increments every 5 seconds. Clocks of different machines
are not compared: a process that sees no change of the file for 45 seconds, by its own clock, takes
the lock over. On the holder's machine, where locks of the operating system do work, it does so as
soon as the holder has ended: the holder locks a file of its own in the folder for temporary files,
if that is the same for both.
"""

import fcntl
import json
import platform
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path

Holder = dict[str, str | int]  # content of the lock file

BEAT_S = 5.0
DEAD_S = 45.0  # without a heartbeat; longer than the delays of a busy network file system
LOOK_S = 0.5


class Held(Exception):
    """Another process holds the lock."""


class Lease:
    """The lock of one stage.

    Parameters
    ----------
    path
        Path of the lock file, which must be the same in all processes that use the lock.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._owner = uuid.uuid4().hex
        self._beat = 0

    @contextmanager
    def held(self, lost: Callable[[], None], *, wait: bool = True) -> Iterator[None]:
        """Hold the lock while the context is active.

        Parameters
        ----------
        lost
            Callback that is called in another thread if another process has taken the lock over,
            because this process was suspended for too long.
        wait
            Whether to wait for a process that holds the lock. That of a dead one is always taken.

        Raises
        ------
        Held
            If another process holds the lock, and `wait` is false.
        """
        with _alive(self._owner):
            self._take(wait=wait)
            ended = threading.Event()
            keeper = threading.Thread(target=self._keep, args=(ended, lost), daemon=True)
            keeper.start()
            try:
                yield
            finally:
                ended.set()
                keeper.join()
                if self._read().get("owner") == self._owner:
                    self._path.unlink(missing_ok=True)

    def fresh(self) -> bool:
        """Return whether a process holds the lock, without waiting.

        The age of the lock file is measured with time stamps of the file system, so that the clocks
        of the machines do not matter.
        """
        content = self._read()
        if not self._path.exists() or _is_dead(content):
            return False
        probe = self._path.with_name(f".{self._path.name}.{self._owner}")
        try:
            probe.touch()
            return probe.stat().st_mtime - self._path.stat().st_mtime < DEAD_S
        except OSError:  # the disk is not writable, or the lock was just released
            return self._path.exists()
        finally:
            probe.unlink(missing_ok=True)

    def beat_at(self) -> float:
        """Return the time of the last heartbeat, as a time stamp of the file system."""
        return self._path.stat().st_mtime

    def _take(self, *, wait: bool) -> None:
        """Take the lock; wait until no process holds it, or raise `Held`."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        seen: Holder = {}
        since = time.monotonic()
        while not self._create():
            if not wait and self.fresh():
                raise Held
            content = self._read()
            if content != seen:
                seen, since = content, time.monotonic()
            if _is_dead(content) or time.monotonic() - since >= DEAD_S:
                self._move_away(content)
            else:
                time.sleep(LOOK_S)

    def _create(self) -> bool:
        """Create the lock file; return False if it already exists."""
        try:
            _write_new(self._path, self._content())
        except FileExistsError:
            return False
        return True

    def _move_away(self, dead: Holder) -> None:
        """Remove a dead holder's lock file; restore it if it has changed in the meantime."""
        aside = self._path.with_name(f".{self._path.name}.{self._owner}")
        with suppress(OSError):
            self._path.rename(aside)
            if self._read(aside) != dead:
                _write_new(self._path, aside.read_text(encoding="utf-8"))
            else:
                _local_file(str(dead.get("owner"))).unlink(missing_ok=True)
        aside.unlink(missing_ok=True)

    def _keep(self, ended: threading.Event, lost: Callable[[], None]) -> None:
        """Update the heartbeat until the lock is released or another process has taken it."""
        while not ended.wait(BEAT_S):
            with suppress(OSError):  # disk full or not available: the next heartbeat may succeed
                if self._read().get("owner", self._owner) != self._owner:
                    lost()
                    return
                self._beat += 1
                beside = self._path.with_name(f".{self._path.name}.{self._owner}")
                beside.write_text(self._content(), encoding="utf-8")
                beside.replace(self._path)

    def _content(self) -> str:
        return json.dumps({"owner": self._owner, "beat": self._beat})

    def _read(self, path: Path | None = None) -> Holder:
        """Return the content of the lock file; empty if it is missing or incomplete."""
        try:
            content = json.loads((path or self._path).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}


def _write_new(path: Path, text: str) -> None:
    """Write a file that must not exist, also where the file system has no hard links.

    Others may see it empty for a moment, which counts as held.

    Raises
    ------
    FileExistsError
        If the file exists.
    """
    with path.open("x", encoding="utf-8") as file:
        file.write(text)


def _local_file(owner: str) -> Path:
    """Return the path of the file that a holder on this machine locks."""
    return Path(tempfile.gettempdir()) / f"mixbench-{_machine()}-{Path(owner).name}.lock"


@cache
def _machine() -> str:
    """Return an ID of this machine: the folder for temporary files may be on a shared disk."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return platform.node()


@contextmanager
def _alive(owner: str) -> Iterator[None]:
    """Lock the owner's file on this machine; the kernel releases it when the process ends."""
    with ExitStack() as stack:
        with suppress(OSError):  # without a place for the file, only the heartbeat counts
            path = _local_file(owner)
            file = stack.enter_context(path.open("wb"))
            stack.callback(path.unlink, missing_ok=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _is_dead(content: Holder) -> bool:
    """Return whether the holder ran on this machine and has ended."""
    try:
        with _local_file(str(content.get("owner"))).open("rb") as file:
            # Shared, since several processes may look at once.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:  # it is locked, or the holder runs on another machine
        return False
    return True
