"""A lease on a stage: who works on it, wherever they are, as long as their heart beats.

A lock of the operating system may say nothing between machines that share a disk. A lease is a file
whose number its holder raises every few seconds. Nobody compares clocks: who finds it unchanged for
long enough by a clock of their own, takes it over; on the holder's own machine, as soon as the
holder is gone.
"""

import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

BEAT_S = 5.0
DEAD_S = 45.0  # without a beat: more than what a busy network's disk keeps from readers
LOOK_S = 0.5


class Lease:
    """The lease of one stage.

    Parameters
    ----------
    path
        Of the file, the same for all who want the lease.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._owner = uuid.uuid4().hex
        self._beat = 0

    @contextmanager
    def held(self, lost: Callable[[], None]) -> Iterator[None]:
        """Wait for the lease, and hold it.

        Parameters
        ----------
        lost
            Called in another thread if somebody took the lease over, because this process was
            stopped for too long.
        """
        self._take()
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
        """Tell by one look whether somebody holds the lease.

        Ages are compared as the disk itself has them, whatever the clocks of those who use it say.
        """
        content = self._read()
        if not self._path.exists() or _is_dead(content):
            return False
        probe = self._path.with_name(f".{self._path.name}.{self._owner}")
        try:
            probe.touch()
            return probe.stat().st_mtime - self._path.stat().st_mtime < DEAD_S
        except OSError:  # a disk that cannot be written to, or a lease that was just given back
            return self._path.exists()
        finally:
            probe.unlink(missing_ok=True)

    def _take(self) -> None:
        """Wait until nobody holds the lease, and take it."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        seen: dict[str, Any] = {}
        since = time.monotonic()
        while not self._create():
            content = self._read()
            if content != seen:
                seen, since = content, time.monotonic()
            if _is_dead(content) or time.monotonic() - since >= DEAD_S:
                self._move_away(content)
            else:
                time.sleep(LOOK_S)

    def _create(self) -> bool:
        """Put our lease there, whole and at once, unless there is one."""
        beside = self._path.with_name(f".{self._path.name}.{self._owner}")
        beside.write_text(self._content(), encoding="utf-8")
        try:
            self._path.hardlink_to(beside)
        except FileExistsError:
            return False
        finally:
            beside.unlink()
        return True

    def _move_away(self, dead: dict[str, Any]) -> None:
        """Remove the lease of a dead holder; put back what another has made of it meanwhile."""
        aside = self._path.with_name(f".{self._path.name}.{self._owner}")
        with suppress(OSError):
            self._path.rename(aside)
            if self._read(aside) != dead:
                self._path.hardlink_to(aside)
        aside.unlink(missing_ok=True)

    def _keep(self, ended: threading.Event, lost: Callable[[], None]) -> None:
        """Let the heart beat until the lease is given back, or somebody else has it."""
        while not ended.wait(BEAT_S):
            with suppress(OSError):  # a disk that is full or away: the next beat may succeed
                if self._read().get("owner", self._owner) != self._owner:
                    lost()
                    return
                self._beat += 1
                beside = self._path.with_name(f".{self._path.name}.{self._owner}")
                beside.write_text(self._content(), encoding="utf-8")
                beside.replace(self._path)

    def _content(self) -> str:
        return json.dumps({"owner": self._owner, "beat": self._beat, **_identity()})

    def _read(self, path: Path | None = None) -> dict[str, Any]:
        """Return what the file says; nothing where it is not there, or half written."""
        try:
            content = json.loads((path or self._path).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}


def _identity() -> dict[str, str]:
    """Return which process this is, among all that share a disk."""
    return {"place": _place(), "pid": str(os.getpid()), "started": _started(os.getpid())}


def _place() -> str:
    """Return where process numbers are unique: a machine since its start, or a container on it."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    with suppress(OSError):
        names = Path("/proc/self/ns/pid").readlink()
        return f"{boot.read_text(encoding='ascii').strip()}/{names}"
    return ""


def _started(pid: int) -> str:
    """Return when a process was started, in the kernel's ticks; empty if there is none."""
    with suppress(OSError):
        words = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        if words[0] not in "ZX":
            return words[19]
    return ""


def _is_dead(content: dict[str, Any]) -> bool:
    """Tell whether the holder was a process of this place, and is gone."""
    place = _place()
    if not place or content.get("place") != place:
        return False
    return _started(int(content["pid"])) != str(content["started"])
