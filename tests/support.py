"""What several test modules need: the program as a function, waiting, made-up stages."""

import json
import subprocess
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest

from mixbench.declare import Recipe
from mixbench.storage.manifest import Hardware, Manifest, Software, StageCost
from mixbench.storage.spec import (
    ExecutionOptions,
    Identity,
    Paths,
    RunIdentity,
    Stage,
    StageKind,
    StageSpec,
    UnitIdentity,
)

if TYPE_CHECKING:
    from _pytest.mark import ParameterSet

Done = subprocess.CompletedProcess[str]
Run = Callable[..., Done]  # the fixture `mixbench`
Result = TypeVar("Result")


def each(names: Iterable[str], *typical: str) -> "list[ParameterSet]":
    """Return names as pytest parameters, of which `make test-fast` uses only the typical ones."""
    return [pytest.param(n, marks=() if n in typical else pytest.mark.full) for n in names]


def until(condition: Callable[[], Result], limit_s: float = 60) -> Result:
    """Return the first result of a condition that counts as true."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError(f"the condition was not met in {limit_s} s")


def reached(store: Path, step: int) -> bool:
    """Tell whether some stage of a store has passed a step."""
    return any(
        json.loads(line)["step"] >= step
        for path in store.glob("work/*/progress.jsonl")
        for line in path.read_text().splitlines()[:-1][-1:]
    )


def stage_processes(store: Path) -> list[int]:
    """Return the processes that write to the logs of a store's stages."""
    found = []
    for path in Path("/proc").glob("[0-9]*/fd/1"):
        with suppress(OSError):
            if path.readlink().is_relative_to(store / "logs"):
                found.append(int(path.parts[2]))
    return found


def made_stage(kind: StageKind = "train") -> Stage:
    """Return a stage of a made-up task."""
    unit = UnitIdentity("toy", 1, {})
    run = RunIdentity(unit, "net", Recipe(model="net", epochs=1), 0, "0" * 64)
    identity = Identity(2, kind, unit, {}, "0" * 32, run=None if kind == "data" else run)
    return Stage("toy/none/net/s0", identity, {}, Paths())


def made_spec(kind: StageKind = "train") -> StageSpec:
    """Return the spec of a stage of a made-up task."""
    return StageSpec(made_stage(kind), ExecutionOptions())


def made_manifest(stage: Stage, cost: StageCost | None = None, key: str = "") -> Manifest:
    """Return the manifest of a stage as if it had been run here."""
    return Manifest(
        key=key or stage.key,
        spec=StageSpec(stage, ExecutionOptions()),
        started="2026-01-01T00:00:00Z",
        ended="2026-01-01T00:01:00Z",
        resumed_at_steps=(),
        hardware=Hardware(cpu="some", cpu_cores=2, ram_gib=24, gpu=None, gpus=0, gpu_gib=None),
        software=Software(
            python="3.11", os="Linux", mixbench="0.1", commit=None, dirty=None, packages={}
        ),
        cost=cost or StageCost(1.0),
    )
