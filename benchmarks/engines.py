"""What an engine costs beside the stages that it runs.

    python -m benchmarks.engines          (about a minute; Ray's column needs mixbench[ray])

A graph of eight stages in two slots: one, on which six rest, and one that rests on them. Each
sleeps for half a second instead of working, so that all of the rest is the engine's: five turns
take two and a half seconds at least. Every round is of a fresh process for each engine, in turns:
what it takes until the engine is there (its imports too), the graph beyond the ideal, and the
launcher's own memory (PSS). Writes benchmarks/engines.json.
"""

import json
import subprocess
import sys
from importlib.util import find_spec
from statistics import median
from typing import Any

from benchmarks.measuring import publish

ROUNDS = 5
SLEEP_S, IDEAL_S = 0.5, 2.5  # one after another: 1, then 6 in two slots, then 1
PEERS = {"local": True, "ray": find_spec("ray") is not None}

CODE = """
import json, sys, tempfile, time
from pathlib import Path
begin = time.perf_counter()
name, sleep_s = sys.argv[1], sys.argv[2]
from mixbench.engines import engine as engines
sleep = f"__import__('time').sleep({sleep_s})"
engines.stage_command = lambda root, *keys: [sys.executable, "-m", "timeit", "-n1", "-r1", sleep]
root = Path(tempfile.mkdtemp())
if name == "local":
    from mixbench.engines.gpus import Slot
    from mixbench.engines.local import LocalEngine
    engine = LocalEngine(root, [Slot()] * 2)
else:
    from mixbench.engines.ray_cluster import RayEngine
    from mixbench.engines.settings import RaySettings
    from mixbench.storage.store import Store
    engine = RayEngine(Store(root), RaySettings())
    engine.num_slots = 2
there = time.perf_counter()
inputs = {"a": [], **{f"b{i}": ["a"] for i in range(6)}, "c": [f"b{i}" for i in range(6)]}
done, started = set(), set()
while len(done) < len(inputs):
    done |= {end.key for end in engine.ended()}
    for key, needed in inputs.items():
        if key not in started and done.issuperset(needed) and engine.free:
            engine.start([key], root / "log")
            started.add(key)
    time.sleep(0.01)
took = time.perf_counter() - there
pss = next(l for l in Path("/proc/self/smaps_rollup").read_text().splitlines() if l[:4] == "Pss:")
print(json.dumps({"start_s": there - begin, "graph_s": took, "pss_mb": int(pss.split()[1]) / 1024}))
sys.stdout.flush()
engine.stop()
"""


def measured(name: str, sleep_s: float = SLEEP_S) -> dict[str, float]:
    """Return what one round with an engine takes, in a process of its own."""
    words = [sys.executable, "-c", CODE, name, str(sleep_s)]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Measure, print and write."""
    rounds: dict[str, list[dict[str, float]]] = {n: [] for n, there in PEERS.items() if there}
    for _ in range(ROUNDS):
        for name, found in rounds.items():
            found.append(measured(name))
    results: dict[str, Any] = {"rounds": ROUNDS, "jobs": 8, "ideal_s": IDEAL_S}
    for name, found in rounds.items():
        middle = {what: median(one[what] for one in found) for what in found[0]}
        results[name] = {**middle, "s_per_job": (middle["graph_s"] - IDEAL_S) / 8}
    if "ray" in rounds:
        ours, theirs = (
            results[n]["start_s"] + results[n]["graph_s"] - IDEAL_S for n in ("local", "ray")
        )
        results["ray_overhead_over_local"] = theirs / ours
    publish("engines", results)


if __name__ == "__main__":
    main()
