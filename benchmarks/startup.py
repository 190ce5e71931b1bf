"""How long a command takes before it does anything, beside Python's own start and torch's import.

    python -m benchmarks.startup          (about a minute)

Each is a fresh process, in turns; what a launcher or a shell waits for. A stage on a GPU is a
process of its own, which imports torch, timm and what an optimizer needs. A stage on the CPU is
forked from a server that has imported them. Writes benchmarks/startup.json.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from multiprocessing import Pipe
from pathlib import Path

from benchmarks.measuring import in_turns, publish, ratio
from mixbench.engines.fork_server import ForkedProcess
from mixbench.storage.store import Store

TURNS = 7
FORKED = "a forked stage"
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import torch": ["-c", "import torch"],
    "mixbench --version": ["-m", "mixbench", "--version"],
    "mixbench list methods": ["-m", "mixbench", "list", "methods"],
    "mixbench plan": ["-m", "mixbench", "plan", "-m", "none,mixup", "-t", "digits", "--store"],
    "mixbench report": ["-m", "mixbench", "report", "--store"],
    "a stage's imports": ["-c", "import mixbench.worker.stages, timm, torch._dynamo"],
}


def process(words: Sequence[str], store: str) -> Callable[[], object]:
    """Return what runs a command, in an empty store where it wants one."""
    whole = [sys.executable, *words, *([store] if words[-1] == "--store" else [])]
    return lambda: subprocess.run(whole, capture_output=True, check=True)


def forked(folder: Path) -> Callable[[], object]:
    """Return what forks a process that does nothing; the first turn starts the server."""

    def run() -> int:
        read, write = Pipe(duplex=False)
        with read, write:
            nothing = ["-n1", "-r1", "pass"]
            return ForkedProcess("timeit", nothing, os.environ, read, folder / "log").wait(60)

    return run


def main() -> None:
    """Measure, print and write."""
    with tempfile.TemporaryDirectory() as store:
        Store(Path(store)).open()
        commands = {name: process(words, store) for name, words in COMMANDS.items()}
        times = in_turns({**commands, FORKED: forked(Path(store))}, TURNS)
    seconds = {name: sorted(values)[TURNS // 2] for name, values in times.items()}
    starts = {name: ratio(times, name, "python -c pass") for name in times}
    publish("startup", {"seconds": seconds, "times_pythons_start": starts})


if __name__ == "__main__":
    main()
