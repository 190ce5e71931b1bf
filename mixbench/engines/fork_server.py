"""Processes that are forked from one that has imported torch and timm, which takes five seconds.

The server is that of Python's `multiprocessing`. It starts with the first process and ends with the
launcher. Processes that use a GPU are not forked, because CUDA must not be in use before a fork,
and because stages on a GPU are long in comparison.
"""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path

from mixbench.errors import MixbenchError
from mixbench.worker.protocol import LIFELINE

NO_SERVER = 255  # exit code


class ForkedProcess:
    """A Python module that runs in a forked process, with the methods of `subprocess.Popen`.

    Parameters
    ----------
    module
        Name of the module to run as the main one.
    arguments
        Command-line arguments of the module.
    environment
        Environment variables of the process.
    lifeline
        Read end of a pipe; the process gets its descriptor in the variable `LIFELINE`.
    log
        File to which the process appends its output.
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        lifeline: Connection,
        log: Path,
    ) -> None:
        given = (module, [*arguments], dict(environment), lifeline, log)
        self._process = started(_run, *given)
        assert self._process.pid is not None  # it was started
        self.pid = self._process.pid
        with suppress(ProcessLookupError):  # it has ended already
            while self.poll() is None and os.getpgid(self.pid) != self.pid:
                time.sleep(0.001)  # until then, the group cannot get a signal

    def poll(self) -> int | None:
        """Return the exit code, or minus the signal that ended the process; None if it runs."""
        code = self._process.exitcode
        # So `multiprocessing` says that the server has ended; a stage has no such exit code.
        return -signal.SIGKILL if code == NO_SERVER else code

    def wait(self, timeout: float) -> int:
        """Wait for the end and return the exit code.

        Raises
        ------
        subprocess.TimeoutExpired
            If the process still runs after `timeout` seconds.
        """
        self._process.join(timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout)
        return code


def started(target: Callable[..., None], *given: object, daemon: bool = False) -> BaseProcess:
    """Start a function in a forked process.

    Raises
    ------
    MixbenchError
        If the server cannot fork.
    """
    process = _server().Process(target=target, args=given, daemon=daemon)
    try:
        process.start()
    except (EOFError, ConnectionError) as error:
        raise MixbenchError(
            "The process that starts stages ended while it imported torch and timm. Check the "
            "installation: python -c 'import torch, timm'"
        ) from error
    return process


def _server() -> ForkServerContext | SpawnContext:
    """Start the server unless it runs, and return the context whose processes it forks.

    If it cannot start, for instance because the path of the folder for temporary files is too long
    for a socket, return a context whose processes are new ones, which start later.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mixbench.engines.preloaded"])
    try:
        # Libraries read the first when they are imported; the second is that of `python -P`.
        with _set("OMP_NUM_THREADS", "1"), _set("PYTHONSAFEPATH", "1"):
            forkserver.ensure_running()
    except OSError:
        return multiprocessing.get_context("spawn")
    return context


def become_new(output: Path) -> None:
    """Give this forked process the signals, paths and streams of a new one; append to `output`."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with Path(os.devnull).open("rb") as nothing, output.open("ab") as file:
        os.dup2(nothing.fileno(), 0)
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


@contextmanager
def _set(name: str, value: str) -> Iterator[None]:
    """Set an environment variable for the duration of the context."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


def _run(
    module: str, arguments: list[str], environment: dict[str, str], lifeline: Connection, log: Path
) -> None:
    """Run the module in the forked process as ``python -m`` would, in a session of its own."""
    become_new(log)
    os.setsid()
    if isinstance(sys.stdout, TextIOWrapper):  # otherwise it has no buffer
        sys.stdout.reconfigure(write_through=True)
    os.environ.clear()
    told = {LIFELINE: str(os.dup(lifeline.fileno())), "PYTHONUNBUFFERED": "1"}
    os.environ.update(environment, **told)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
