"""How long a command takes before it does anything, beside Python's own start and torch's import.

    python -m benchmarks.startup          (about a minute)

Each is a fresh process, in turns; what a launcher or a shell waits for. A stage is a process of its
own, which pays for torch once. Writes benchmarks/startup.json.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.measuring import in_turns, publish, ratio
from mixbench.storage.store import Store

TURNS = 7
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import torch": ["-c", "import torch"],
    "mixbench --version": ["-m", "mixbench", "--version"],
    "mixbench list methods": ["-m", "mixbench", "list", "methods"],
    "mixbench plan": ["-m", "mixbench", "plan", "-m", "none,mixup", "-t", "digits", "--store"],
    "mixbench report": ["-m", "mixbench", "report", "--store"],
    "a stage's imports": ["-c", "import mixbench.worker.stages"],
}


def process(words: Sequence[str], store: str) -> Callable[[], object]:
    """Return what runs a command, in an empty store where it wants one."""
    whole = [sys.executable, *words, *([store] if words[-1] == "--store" else [])]
    return lambda: subprocess.run(whole, capture_output=True, check=True)


def main() -> None:
    """Measure, print and write."""
    with tempfile.TemporaryDirectory() as store:
        Store(Path(store)).open()
        times = in_turns({n: process(words, store) for n, words in COMMANDS.items()}, TURNS)
    seconds = {name: sorted(values)[TURNS // 2] for name, values in times.items()}
    starts = {name: ratio(times, name, "python -c pass") for name in COMMANDS}
    publish("startup", {"seconds": seconds, "times_pythons_start": starts})


if __name__ == "__main__":
    main()
