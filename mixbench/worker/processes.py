"""A stage's process and the processes that it starts, of which none outlives it.

The stage runs in a child of a supervisor. On Linux, a process that loses its parent is handed to
the nearest ancestor that asked for it, which the supervisor does: it finds and ends what the stage
has started, also in sessions of their own, whatever ended the stage or the launcher.
"""

import ctypes
import os
import signal
import threading
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
FORWARDED = (signal.SIGTERM, signal.SIGINT)


def supervised(lifeline: int | None) -> int | None:
    """Fork; return None in the child, and in the supervisor the child's exit code once it ended.

    The supervisor ends as the child did, also by the same signal.

    Parameters
    ----------
    lifeline
        Descriptor of a pipe; when its other end is closed, all processes are killed.
    """
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    supervisor = os.getpid()
    child = os.fork()
    if child == 0:
        _prctl(PR_SET_CHILD_SUBREAPER, 0)
        end_with_parent(supervisor)
        return None
    for number in FORWARDED:  # SLURM signals the first process of a job only
        signal.signal(number, lambda number, _: _send(child, number))
    if lifeline is not None:
        threading.Thread(target=_watch, args=(lifeline,), daemon=True).start()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    kill_descendants()
    if code < 0:
        with suppress(OSError):  # SIGKILL has no handler
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


def end_with_parent(parent: int) -> None:
    """Let the kernel kill this process when its parent ends, on Linux."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the request
        os.kill(os.getpid(), signal.SIGKILL)


def kill_descendants() -> None:
    """Kill all processes that descend from this one."""
    for pid in _descendants(os.getpid()):
        _send(pid, signal.SIGKILL)


def _watch(lifeline: int) -> None:
    """Kill all processes of the stage once the launcher's end of the pipe is closed."""
    while os.read(lifeline, 1):
        pass
    kill_descendants()
    os.kill(os.getpid(), signal.SIGKILL)


def _descendants(of: int) -> list[int]:
    """Return the IDs of all processes that descend from a process."""
    children: dict[int, list[int]] = defaultdict(list)
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError):
            # The name, in brackets, can contain any text; state and parent follow it.
            _state, parent, *_ = path.read_text(errors="replace").rpartition(")")[2].split()
            children[int(parent)].append(int(path.parent.name))
    found = [*children[of]]
    for pid in found:
        found += children[pid]
    return found


def _send(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _prctl(option: int, value: int) -> None:
    """Set an attribute of this process, on Linux."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
