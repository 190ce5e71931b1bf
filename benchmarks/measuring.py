"""How the benchmarks measure: everything in turns, ratios within a turn, medians over turns."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch

from mixbench.worker.environment import hardware, keep_freed_memory

FOLDER = Path(__file__).parent
Times = Mapping[str, list[float]]


def settle(threads: int = 1) -> None:
    """Set the threads and the allocator as a stage sets them; for the peers, too."""
    torch.set_num_threads(threads)
    keep_freed_memory()


def in_turns(
    ways: Mapping[str, Callable[[], object]], turns: int, *, repeat: int = 1
) -> dict[str, list[float]]:
    """Return the seconds that each way takes, in every turn but a first one, which warms up.

    Parameters
    ----------
    repeat
        How often a way is run in a turn; the time is of one.
    """
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(turns + 1):
        for name, way in ways.items():
            start = perf_counter()
            for _ in range(repeat):
                way()
            if turn:
                times[name].append((perf_counter() - start) / repeat)
    return times


def ratio(times: Times, of: str, to: str) -> float:
    """Return how many times as long one way takes as another: the median over the turns."""
    return median(a / b for a, b in zip(times[of], times[to], strict=True))


def machine() -> dict[str, Any]:
    """Return what the figures were measured on."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    here = hardware(device, torch.cuda.device_count())
    cores = len(os.sched_getaffinity(0))
    return {"cpu": here.cpu, "cores": cores, "gpu": here.gpu, "torch": torch.__version__}


def publish(name: str, results: Mapping[str, Any]) -> None:
    """Print the results with the machine they are of, and write them beside the scripts."""
    text = json.dumps({"machine": machine(), **results}, indent=1)
    print(text)
    (FOLDER / f"{name}.json").write_text(text + "\n", encoding="utf-8")
