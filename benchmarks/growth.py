"""How cost grows: with classes, batches, images, records and cells.

    python -m benchmarks.growth           (about three minutes)

The search without a network, by classes; mixing, by the batch and by the image's side; `report` by
records, first and again, and `plan` by cells, as fresh processes with their peak memory. The
records are those of leaderboards/digits with other names of models, so that every 35 of them make a
leaderboard. Writes growth.json and growth.svg.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from matplotlib.figure import Figure

from benchmarks.measuring import FOLDER, in_turns, publish, settle
from benchmarks.mixing import Batch, ours
from benchmarks.search import machinery
from mixbench.storage.store import Store

RECORDS = FOLDER.parent / "leaderboards" / "digits" / "records"
CLASSES = (10, 30, 100, 300, 1000)
BATCHES, SIDES = (32, 64, 128, 256, 512), (32, 64, 112, 224)
MANY = (100, 1000, 10_000)
METHODS = ("none", "mixup", "manifold_mixup", "cutmix", "random_patchmix")
# A process begins as a copy of what starts it: memory is told by one that has none of its own.
WATCH = """
import resource, subprocess, sys, time
start = time.perf_counter()
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)
print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
Rows = list[dict[str, Any]]


def mixing() -> dict[str, Rows]:
    """Return milliseconds of the kernels, for more images and for larger ones."""
    return {
        "by_batch": [
            {"batch": number, **_milliseconds(Batch(64, torch.float32, number))}
            for number in BATCHES
        ],
        "by_side": [
            {"side": side, **_milliseconds(Batch(side, torch.float32, 64))} for side in SIDES
        ],
    }


def _milliseconds(batch: Batch) -> dict[str, float]:
    return {name: 1e3 * median(times) for name, times in in_turns(ours(batch), 15).items()}


def reporting(scratch: Path) -> Iterator[dict[str, Any]]:
    """Yield what `mixbench report` takes of more and more records."""
    templates = [json.loads(p.read_text("utf-8")) for p in sorted(RECORDS.rglob("*.json"))]
    for number in MANY:
        store = scratch / str(number)
        Store(store).open()
        for item in range(number):
            model, template = f"net-{item // len(templates)}", templates[item % len(templates)]
            path = store / "records" / "digits" / model / f"{item}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            # A number of its own for every net, so that no comparison is like another.
            own = [{**m, "value": m["value"] + 1e-7 * item} for m in template["metrics"]]
            path.write_text(json.dumps({**template, "model": model, "metrics": own}), "utf-8")
        command = ["report", "--store", str(store)]
        (first_s, _), (again_s, mib) = measured(command), measured(command)
        yield {"records": number, "first_s": first_s, "again_s": again_s, "peak_mib": mib}


def planning(scratch: Path) -> Iterator[dict[str, Any]]:
    """Yield what `mixbench plan` takes of more and more cells."""
    for number in MANY:
        seeds = str(number // len(METHODS))
        command = ["plan", "-m", ",".join(METHODS), "-t", "digits", "--seeds", seeds]
        seconds, mib = measured([*command, "--store", str(scratch / "plan")])
        yield {"cells": number, "seconds": seconds, "peak_mib": mib}


def measured(words: Sequence[str]) -> tuple[float, float]:
    """Run a command; return its seconds and its peak memory in MiB."""
    whole = [sys.executable, "-c", WATCH, sys.executable, "-m", "mixbench", *words]
    done = subprocess.run(whole, capture_output=True, text=True, check=True)
    seconds, kib = done.stdout.split()
    return float(seconds), int(kib) / 1024


def draw(results: Mapping[str, Any]) -> None:
    """Draw the curves, both axes logarithmic: what is proportional rises by one in one."""
    figure = Figure(figsize=(10, 5.2), layout="constrained")
    *panels, empty = figure.subplots(2, 3).flat
    empty.remove()
    kernels = ("blend", "box", "grid")
    for panel, (title, rows, by, columns, unit) in zip(
        panels,
        (
            ("search, without a network", results["search"], "classes", ("machinery_s",), "s"),
            ("mixing, 64 pixels", results["mixing"]["by_batch"], "batch", kernels, "ms"),
            ("mixing, 64 images", results["mixing"]["by_side"], "side", kernels, "ms"),
            ("mixbench report", results["reporting"], "records", ("first_s", "again_s"), "s"),
            ("mixbench plan", results["planning"], "cells", ("seconds",), "s"),
        ),
        strict=True,
    ):
        for column in columns:
            x, y = [row[by] for row in rows], [row[column] for row in rows]
            panel.plot(x, y, marker="o", label=column.removesuffix("_s").replace("_", " "))
        panel.set(title=title, xlabel=by, ylabel=unit, xscale="log", yscale="log")
        panel.set_xticks([row[by] for row in rows], [f"{row[by]:,}" for row in rows])
        panel.yaxis.set_major_formatter("{x:g}")
        panel.minorticks_off()
        panel.grid(alpha=0.3)
        if len(columns) > 1:
            panel.legend(frameon=False)
    figure.savefig(FOLDER / "growth.svg", metadata={"Date": None})


def main() -> None:
    """Measure, print, write and draw."""
    settle()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        results = {
            "search": [machinery(classes) for classes in CLASSES],
            "mixing": mixing(),
            "reporting": [*reporting(scratch)],
            "planning": [*planning(scratch)],
        }
    publish("growth", results)
    draw(results)


if __name__ == "__main__":
    main()
