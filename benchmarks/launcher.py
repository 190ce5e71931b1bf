"""What a launcher costs while eight stages run and all others wait.

    python -m benchmarks.launcher         (about two minutes)

Its share of a core and its peak memory by cells, each in a process of its own, with the display of
a terminal. The stages do not end. Writes launcher.json.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.measuring import publish

MANY = (100, 1000, 10_000)
CODE = """
import io, json, sys, time
from pathlib import Path
from rich.console import Console
from mixbench.cli.run import _noted
from mixbench.engines.progress import Show
from mixbench.engines.run_state import RunState, mark_cached
from mixbench.engines.scheduler import Scheduler
from mixbench.plan.graph import plan
from mixbench.plan.request import Request, cells_of
from mixbench.storage.spec import ExecutionOptions
from mixbench.storage.store import Store

class Endless:
    num_slots, gpus, gpus_alone, outlives, running = 8, 0, 0, False, 0
    free = property(lambda self: self.running < 8)
    until = time.monotonic() + 3600
    def adopt(self, keys): return set()
    def start(self, keys, log):
        self.running += 1
        line = '{"step": 5, "of": 100, "first": 0, "steps_per_s": 3.0, "elapsed_s": 2.0}'
        (store.work(keys[0]) / "progress.jsonl").write_text(line + chr(10))
    def ended(self):
        if time.monotonic() > self.until: raise KeyboardInterrupt
        return []
    def place(self, key): return "GPU 0"
    def stop(self): pass

store = Store(Path(sys.argv[1]))
store.open()
methods = ("none", "mixup", "manifold_mixup", "cutmix", "random_patchmix")
asked = Request(methods, ("digits",), seeds=range(int(sys.argv[2]) // len(methods)))
planned = plan(cells_of(asked))
store.note_run(_noted(planned, ["mixbench"], "local"))
board = RunState(planned, store, 8)
mark_cached(board, print)
engine = Endless()
with Show(Console(file=io.StringIO(), force_terminal=True, width=140)) as show:
    start, engine.until = time.process_time(), time.monotonic() + 20
    try: Scheduler(board, engine, show, print, ExecutionOptions()).run()
    except KeyboardInterrupt: pass
    share = 100 * (time.process_time() - start) / 20
lines = Path("/proc/self/status").read_text().splitlines()
peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
print(json.dumps({"core_percent": share, "peak_mib": peak / 1024}))
"""


def measured(cells: int) -> dict[str, Any]:
    """Return the share of a core and the peak memory of a launcher."""
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-c", CODE, str(Path(folder) / "store"), str(cells)]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return {"cells": cells, **found}


def main() -> None:
    """Measure, print and write."""
    publish("launcher", {"running": 8, "launchers": [measured(cells) for cells in MANY]})


if __name__ == "__main__":
    main()
