"""A run is followed and ended from another shell."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from mixbench.engines import slurm_queue
from mixbench.storage.files import write_json
from mixbench.storage.store import Store
from tests.support import Run

pytestmark = pytest.mark.full

LONG = ["run", "-m", "none,mixup", "-t", "digits", "--set", "digits.epochs=200"]


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A long run of two cells, both of which are training."""
    environment = os.environ | {"MIXBENCH_STORE": str(tmp_path / "store")}
    command = [sys.executable, "-m", "mixbench", *LONG]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 60
        progress = tmp_path / "store/work"
        while len([*progress.glob("*/progress.jsonl")]) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        yield process
        process.send_signal(signal.SIGINT)


def states(mixbench: Run) -> dict[str, str]:
    """Return the state of every training."""
    rows = json.loads(mixbench("status", "--json").stdout)["runs"][0]["cells"]
    return {row["cell"].split("/")[1]: row["state"] for row in rows if row["kind"] == "train"}


def test_one_cell_is_cancelled_and_the_other_goes_on(
    mixbench: Run, launcher: subprocess.Popen[str]
) -> None:
    assert states(mixbench) == {"none": "running", "mixup": "running"}

    done = mixbench("cancel", "mixup")

    assert done.returncode == 0, done.stderr
    assert "Cancelled 2 stages of digits/mixup" in done.stdout
    deadline = time.monotonic() + 30
    while states(mixbench)["mixup"] == "running" and time.monotonic() < deadline:
        time.sleep(0.3)
    assert states(mixbench) == {"none": "running", "mixup": "stopped"}
    assert launcher.poll() is None


def test_all_cells_are_cancelled_and_the_launcher_ends(
    mixbench: Run, launcher: subprocess.Popen[str], tmp_path: Path
) -> None:
    assert mixbench("cancel", "--all").returncode == 0

    _, said = launcher.communicate(timeout=60)

    assert launcher.returncode == 1
    assert said.count("it was cancelled; run the same command again to resume") >= 2
    assert len([*tmp_path.glob("store/work/*/checkpoint-*.pt")]) >= 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [([], "Name the cells to cancel"), (["cutmix"], "cutmix"), (["none", "--all"], "or give --all"),
     (["none"], "")],
)  # fmt: skip
def test_cells_that_are_none_are_refused(
    mixbench: Run, tmp_path: Path, arguments: list[str], said: str
) -> None:
    stages = [{"kind": "train", "key": "k"}]
    cells = [{"cell": "digits/none/resnet8/s0", "stages": stages}]
    store = Store(tmp_path / "store")
    store.open()
    note = {"created": "", "command": [], "engine": "local", "cells": cells}
    write_json(store.runs / "1.json", note)

    done = mixbench("cancel", *arguments)

    assert done.returncode == (2 if said else 0)
    assert said in done.stderr
    assert store.cancelled() == (set() if said else {"k"})


def test_runs_that_go_on_are_current_beside_the_newest(
    mixbench: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one whose launcher has ended, if SLURM has a job of it."""
    store = Store(tmp_path / "store")
    store.open()
    job = slurm_queue.Line("7", slurm_queue.job_name(store, "a job"), "RUNNING", "None", "n1")
    called: list[Sequence[str]] = []
    monkeypatch.setattr(slurm_queue, "queue", lambda: {"7": job})
    monkeypatch.setattr(slurm_queue, "call", called.append)
    for name in ("ended", "a job", "going", "newest"):
        cell = {"cell": f"digits/{name}/resnet8/s0", "stages": [{"kind": "train", "key": name}]}
        engine = "slurm" if name == "a job" else "local"
        note = {"created": name, "command": [], "engine": engine, "cells": [cell]}
        write_json(store.runs / f"{name}.json", note)

    with store.launcher_lease(store.runs / "going.json").held(lost=lambda: None):
        shown = json.loads(mixbench("status", "--json").stdout)["runs"]
        said = mixbench("status").stdout
        done = mixbench("cancel", "--all")

    assert [run["created"] for run in shown] == ["a job", "going", "newest"]
    assert [name in said for name in ("ended", "going", "newest")] == [False, True, True]
    assert "job 7 on n1" in said
    assert store.cancelled() == {"a job", "going", "newest"}
    assert called == [["scancel", "7"]]
    assert done.returncode == 2, "scancel did not answer"


def test_cells_of_one_name_are_cancelled_together(mixbench: Run, tmp_path: Path) -> None:
    """Their recipes differ, which their names do not say."""
    store = Store(tmp_path / "store")
    store.open()
    cells = [
        {"cell": "digits/none/resnet8/s0", "stages": [{"kind": "train", "key": key}]}
        for key in ("a", "b")
    ]
    note = {"created": "", "command": [], "engine": "local", "cells": cells}
    write_json(store.runs / "1.json", note)

    done = mixbench("cancel", "none")

    assert "Cancelled 2 stages of digits/none/resnet8/s0" in done.stdout
    assert store.cancelled() == {"a", "b"}


@pytest.mark.usefixtures("launcher")
def test_logs_are_followed(tmp_path: Path) -> None:
    environment = os.environ | {"MIXBENCH_STORE": str(tmp_path / "store")}
    command = [sys.executable, "-m", "mixbench", "logs", "-f", "mixup"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    ) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline().startswith("--- digits/mixup")
        assert "train digits/mixup" in follower.stdout.readline()
        assert follower.poll() is None
        follower.kill()


def test_two_launchers_share_the_work_of_one_store(tmp_path: Path) -> None:
    """Each stage is run once, and a launcher that has none left waits for those of the other."""
    words = ["run", "-m", "none,mixup", "-t", "digits", "--seeds", "2", "--set", "digits.epochs=2"]
    environment = os.environ | {"MIXBENCH_STORE": str(tmp_path / "store")}
    command = [sys.executable, "-m", "mixbench", *words]
    both = [
        subprocess.Popen(
            command, cwd=tmp_path, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for _ in range(2)
    ]  # fmt: skip

    ended = [(process.communicate(timeout=120), process.returncode) for process in both]

    assert [code for _, code in ended] == [0, 0], ended
    said = [out + err for (out, err), _ in ended]
    assert all(" none " in text and " mixup " in text for text in said)
    store = Store(tmp_path / "store")
    assert len(store.finished_keys()) == 8
    logs = [path.read_text() for path in (tmp_path / "store/logs").glob("*.txt")]
    assert sum(text.count(" digits/") for text in logs) == 8
