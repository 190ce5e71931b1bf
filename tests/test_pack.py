"""Several trainings in one process: each ends as it would alone."""

import json
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from mixbench.train.interleave import run_interleaved
from tests.support import Run

FEW = ("--set", "digits.epochs=2", "--set", "digits.tail=1")
RAISES = '''"""Raises.

Paper    none
Source   none
Differs  in all
"""

from torch import Tensor

from mixbench.contract import Method, Sources, Step


class Raises(Method):
    """Raises in its eleventh step."""

    version = 1
    seen = 0

    def mix(self, x: Tensor, step: Step) -> tuple[Tensor, Sources]:
        """Return the batch, ten times."""
        self.seen += 1
        if self.seen > 10:
            raise ValueError("no more")
        return x, Sources.unmixed(x)
'''


def test_runs_take_turns_until_each_has_ended() -> None:
    order: list[str] = []
    working = threading.Lock()

    def work(name: str, steps: int, yield_turn: Callable[[], None]) -> None:
        for _ in range(steps):
            assert working.acquire(blocking=False), "two work at a time"
            order.append(name)
            working.release()
            yield_turn()

    run_interleaved([partial(work, "a", 3), partial(work, "b", 1), partial(work, "c", 2)])

    assert "".join(order) == "abcaca"


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("packed")
    (folder / "raises.py").write_text(RAISES)
    return folder / "alone", folder / "packed"


@pytest.mark.full
def test_a_packed_run_is_the_run_alone(mixbench: Run, stores: tuple[Path, Path]) -> None:
    cell = ("run", "-m", "none,mixup,random_patchmix", "-t", "digits", *FEW)
    for store, pack in zip(stores, ("1", "3"), strict=True):
        done = mixbench(*cell, "--pack", pack, "--store", str(store))
        assert done.returncode == 0, done.stderr

    alone, packed = (
        {path.relative_to(store): path.read_bytes() for path in store.glob("stages/*/weights/*")}
        for store in stores
    )
    assert len(alone) == 6
    assert alone == packed
    logs = [path.read_text() for path in (stores[1] / "logs").iterdir()]
    assert sum("Runs in one process with others" in log for log in logs) == 2


@pytest.mark.full
def test_one_that_fails_leaves_the_others_alone(mixbench: Run, stores: tuple[Path, Path]) -> None:
    plugin, store = stores[0].parent / "raises.py", stores[0].parent / "failing"
    cell = ("run", "-m", f"none,{plugin}", "-t", "digits", *FEW)

    done = mixbench(*cell, "--pack", "2", "--store", str(store))

    assert done.returncode == 1
    records = [json.loads(path.read_text()) for path in store.glob("records/*/*/*.json")]
    by_method = {record["method"]["name"]: record for record in records}
    assert by_method["none"]["status"] == "ok"
    assert by_method["raises"]["status"] == "failed"
    assert "no more" in by_method["raises"]["reason"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--gpus-per-cell", "2"], "--pack trains several models on one GPU"),
        (["--engine", "slurm"], "--pack needs --engine local (got --engine slurm)"),
    ],
)
def test_what_cannot_be_packed_is_one_sentence(
    mixbench: Run, tmp_path: Path, options: list[str], said: str
) -> None:
    done = mixbench("run", "-m", "none", "-t", "digits", "--pack", "2", *options)

    assert done.returncode == 2
    assert said in done.stderr
    assert not any(tmp_path.iterdir())
