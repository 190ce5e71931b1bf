import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Tests run beside each other's processes on few cores."""
    torch.set_num_threads(1)


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def mixbench(tmp_path: Path) -> Run:
    """Run the program as a user does, with a store of the test's own."""

    def run(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"MIXBENCH_STORE": str(tmp_path / "store"), "COLUMNS": "100"}
        done: subprocess.CompletedProcess[str] = subprocess.run(
            [sys.executable, "-m", "mixbench", *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment,
            timeout=300,
            check=False,
            **options,  # type: ignore[call-overload]
        )
        return done

    return run


FAST = ("--data", "synthetic", "--set", "digits.epochs=1")


@pytest.fixture
def fast() -> tuple[str, ...]:
    """Options with which a cell of digits takes a second of training."""
    return FAST
