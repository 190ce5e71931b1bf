import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from itertools import chain
from multiprocessing import forkserver
from pathlib import Path
from typing import Any, NoReturn

import numpy.testing  # noqa: F401  # numpy 2.0 starts `lscpu` when it is imported
import pytest
import torch

from mixbench.__main__ import run_command
from mixbench.records.schema import Record
from tests.support import Done, Run


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Tests run beside each other's processes on few cores."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _heed_ctrl_c() -> None:
    """Shells start jobs in the background deaf to it, and what tests start would be, too."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _no_process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that is part of `make test-fast` starts no process."""

    def refuse(*_: object, **_named: object) -> NoReturn:
        raise AssertionError("This test starts a process: mark it as `full`.")

    if not {mark.name for mark in request.node.iter_markers()} & {"full", "slow"}:
        monkeypatch.setattr(subprocess.Popen, "__init__", refuse)
        monkeypatch.setattr(forkserver, "ensure_running", refuse)
        monkeypatch.setattr(os, "fork", refuse)


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def mixbench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command as the program does, but in this process; it has a store of the test's own."""

    def run(*arguments: str) -> Done:
        out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
        handler = signal.getsignal(signal.SIGTERM)
        _forget_files()
        with monkeypatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.chdir(tmp_path)
            patch.setenv("MIXBENCH_STORE", str(tmp_path / "store"))
            patch.setenv("COLUMNS", "100")
            patch.setattr(sys, "argv", ["mixbench", *arguments])
            code = run_command()
        signal.signal(signal.SIGTERM, handler)
        said = [stream.buffer.getvalue().decode() for stream in (out, err)]
        return Done(["mixbench", *arguments], code, *said)

    return run


def _forget_files() -> None:
    """Empty the caches of what files contain: a test may have changed them since."""
    registry = [module for name, module in sys.modules.items() if "mixbench.registry" in name]
    for value in chain.from_iterable(vars(module).values() for module in registry):
        if hasattr(value, "cache_clear"):
            value.cache_clear()


@pytest.fixture
def mixbench_process(tmp_path: Path) -> Run:
    """Run the program in a process, for what only a new interpreter shows."""

    def run(*arguments: str) -> Done:
        return subprocess.run(
            [sys.executable, "-m", "mixbench", *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=os.environ | {"MIXBENCH_STORE": str(tmp_path / "store"), "COLUMNS": "100"},
            timeout=3600,
            check=False,
        )

    return run


FAST = ("--set", "digits.epochs=1")


@pytest.fixture
def fast() -> tuple[str, ...]:
    """Options with which a cell of digits takes a second of training."""
    return FAST


MakeRecord = Callable[..., Record]


def _metric(value: float, at: str) -> dict[str, Any]:
    return {
        "name": "top1", "value": value, "unit": "%", "higher_is_better": True,
        "primary": True, "at": at, "n": 600, "stderr": 0.5,
    }  # fmt: skip


@pytest.fixture
def make_record() -> MakeRecord:
    """Return records of a made-up task; keywords replace fields."""

    def make(method: str = "none", seed: int = 0, value: float = 90.0, /, **changes: Any) -> Record:
        unit = {"version": 1, "parameters": {}, "changed": [], "source": "builtin"}
        unit["code"] = "0" * 32
        failed = changes.get("status", "ok") != "ok"
        facts: dict[str, Any] = {
            "schema": "mixbench/record@2",
            "cell": f"toy/{method}/net/s{seed}/01234567",
            "created": "2026-01-01T00:00:00Z",
            "status": "ok",
            "reason": None,
            "log": None,
            "method": {"name": method, **unit},
            "task": {"name": "toy", **unit},
            "model": "net",
            "protocol": "quick",
            "recipe": {"epochs": 3, "batch_size": 100, "lr": 0.1},
            "seed": seed,
            "data": {"name": "toy", "version": "1", "origin": "official", "digest": "0" * 64},
            "stages": [],
            "metrics": [] if failed else [_metric(value, "last"), _metric(1.0, "best_validation")],
            "references": [],
            "cost": None if failed else {
                "wall_s_marginal": 60.0, "wall_s_total": 120.0, "train_s": 100.0, "eval_s": 20.0,
                "gpu_hours_marginal": 0.0, "gpu_hours_total": 0.0, "images": 5000,
                "parameters": 100, "extra_parameters": 0, "peak_host_gib": 0.5,
                "peak_gpu_gib": None, "energy_kwh": None,
            },
            "hardware": None,
            "software": None,
            "artifacts": [],
            "command": ["mixbench", "run"],
        }  # fmt: skip
        return Record.model_validate(facts | changes)

    return make
