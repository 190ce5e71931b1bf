"""The program as a user runs it: digits, generated images, one epoch."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mixbench.registry.units import paths
from tests.support import Run, reached, stage_processes, until

pytestmark = pytest.mark.full

Results = tuple[Any, Any]
SYNTHETIC = ("--data", "synthetic")
EVERY = 7  # steps between checkpoints
LONG = (
    *("run", "-m", "random_patchmix", "-t", "digits", *SYNTHETIC),
    *("--set", "digits.epochs=30", "--checkpoint-every", str(EVERY)),
)


def stages_of(store: Path) -> dict[str, float]:
    """Return every finished stage with the time at which it was finished."""
    return {p.parent.name: p.stat().st_mtime for p in store.glob("stages/*/manifest.json")}


def records_of(store: Path) -> list[dict[str, Any]]:
    return [json.loads(p.read_text()) for p in sorted(store.glob("records/*/*/*.json"))]


def test_a_run_ends_in_a_leaderboard_and_repeats_nothing(
    mixbench: Run, fast: tuple[str, ...], tmp_path: Path
) -> None:
    command = ("run", "-m", "none,mixup", "-m", "random_patchmix", "-t", "digits", *fast)
    command += SYNTHETIC

    first = mixbench(*command)
    made = stages_of(tmp_path / "store")
    second = mixbench(*command)

    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "3 methods x 1 task x 1 seed = 3 cells, 7 stages: 0 cached, 7 to run" in first.stderr
    assert "0 to run" in second.stderr
    assert stages_of(tmp_path / "store") == made
    assert first.stdout == second.stdout
    for word in ("synthetic data", "none", "mixup", "random_patchmix", "leaderboards.md"[:12]):
        assert word in first.stdout
    written = tmp_path / "store" / "leaderboards"
    assert {p.name for p in written.iterdir()} == {
        "leaderboards.md", "leaderboards.csv", "leaderboards.json",
    }  # fmt: skip
    assert [r["status"] for r in records_of(tmp_path / "store")] == ["ok"] * 3


def test_a_record_counts_shared_stages_once_and_says_who_paid(
    mixbench: Run, fast: tuple[str, ...], tmp_path: Path
) -> None:
    mixbench("run", "-m", "none", "-t", "digits", *fast, *SYNTHETIC)
    mixbench("run", "-m", "mixup", "-t", "digits", *fast, *SYNTHETIC)

    # By name: both may have been written in the same second.
    shared, paid = sorted(records_of(tmp_path / "store"), key=lambda r: r["method"]["name"])

    assert [s["kind"] for s in paid["stages"]] == ["data", "train", "evaluate"]
    assert [s["state"] for s in paid["stages"]] == ["ran", "ran", "ran"]
    assert [s["state"] for s in shared["stages"]] == ["reused", "ran", "ran"]
    assert paid["stages"][0]["key"] == shared["stages"][0]["key"]
    assert shared["cost"]["wall_s_marginal"] < shared["cost"]["wall_s_total"]
    assert shared["cost"]["images"] == 1000
    assert {a["role"] for a in paid["artifacts"]} == {
        *("weights", "curve", "metrics", "predictions", "compact_predictions")
    }


def test_fresh_computes_again_and_gives_the_same_numbers(
    mixbench: Run, fast: tuple[str, ...], tmp_path: Path
) -> None:
    command = ("run", "-m", "random_patchmix", "-t", "digits", *fast)
    mixbench(*command)
    (before,) = records_of(tmp_path / "store")
    stages = stages_of(tmp_path / "store")

    done = mixbench(*command, "--fresh")

    (after,) = records_of(tmp_path / "store")
    assert done.returncode == 0
    assert stages_of(tmp_path / "store") != stages
    assert after["metrics"] == before["metrics"]
    weights = [{a["path"]: a["sha256"] for a in r["artifacts"] if a["role"] == "weights"}
               for r in (before, after)]  # fmt: skip
    assert weights[0] == weights[1]


def test_every_command_answers_in_json(mixbench: Run, fast: tuple[str, ...]) -> None:
    cell = ("-m", "none", "-t", "digits", *fast)
    run = json.loads(mixbench("run", *cell, "--json").stdout)

    assert run["cells"][0]["status"] == "ok"
    assert run["leaderboards"][0]["rows"][0]["method"] == "none"
    plan = json.loads(mixbench("plan", *cell, "--json").stdout)
    assert {row["state"] for row in plan} == {"cached"}
    assert json.loads(mixbench("run", "--dry-run", *cell, "--json").stdout) == plan
    assert json.loads(mixbench("report", "--json").stdout)[0]["metric"] == "top1"
    status = json.loads(mixbench("status", "--json").stdout)
    assert {row["state"] for row in status["runs"][0]["cells"]} == {"finished"}
    assert len(json.loads(mixbench("cache", "ls", "--json").stdout)) == 2
    why = json.loads(mixbench("cache", "why", *cell, "--json").stdout)
    assert [row["why"] for row in why] == [[], []]
    assert "mixup" in json.loads(mixbench("list", "methods", "--json").stdout)
    info = json.loads(mixbench("info", "digits", "--json").stdout)
    assert info["declared"]["protocols"]["paper"]["epochs"] == 400
    named = mixbench("info", str(paths("task")["digits"])).stdout
    assert named.startswith("task digits, version 2, builtin")
    assert all(row["ok"] for row in json.loads(mixbench("doctor", "--json").stdout))


def test_readers_answer_in_text(mixbench: Run, fast: tuple[str, ...], tmp_path: Path) -> None:
    cell = ("-m", "mixup", "-t", "digits", *fast)
    mixbench("run", *cell)

    assert "| mixup" in mixbench("report", "--format", "markdown").stdout
    assert mixbench("report", "--format", "csv").stdout.startswith(
        "method,first_rank,last_rank,n,mean"
    )
    assert "finished 2" in mixbench("status").stdout
    assert "train digits" in mixbench("logs", "mixup").stdout
    assert "2 stages" in mixbench("cache", "ls").stdout
    changed = mixbench("cache", "why", *cell, "--set", "mixup.alpha=0.5").stdout
    assert "no such stage is stored" in changed
    assert "method.parameters" not in changed
    (tmp_path / "store" / "damaged" / "x").mkdir(parents=True)
    assert "1 folders would be removed" in mixbench("cache", "gc", "--dry-run").stdout
    assert "1 folders removed" in mixbench("cache", "gc").stdout
    assert len(stages_of(tmp_path / "store")) == 2


def test_corrupt_stages_are_put_aside_by_cache_gc(
    mixbench: Run, fast: tuple[str, ...], tmp_path: Path
) -> None:
    mixbench("run", "-m", "none", "-t", "digits", *fast)
    store = tmp_path / "store"
    weights = max(store.glob("stages/*/weights/*.safetensors"), key=lambda p: p.stat().st_size)
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)

    told = mixbench("cache", "gc", "--verify", "--dry-run").stdout
    assert f"{weights} is damaged\n" in told
    told = mixbench("cache", "gc", "--verify").stdout
    assert f"{weights} is damaged: its stage is now in {store / 'damaged'}" in told
    assert len(stages_of(store)) == 1
    assert (
        "to run  train" in mixbench("plan", "--stages", "-m", "none", "-t", "digits", *fast).stdout
    )


@contextmanager
def spawned(store: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start a long run; what it says goes to a file beside the store."""
    with store.with_suffix(".said").open("ab") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "mixbench", *LONG],
            env=os.environ | {"MIXBENCH_STORE": str(store)},
            stdout=said,
            stderr=said,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def finish(store: Path) -> Results:
    """Give the command and return what it leaves."""
    with spawned(store) as process:
        assert process.wait(300) == 0, store.with_suffix(".said").read_text()
    return results_of(store)


def results_of(store: Path) -> Results:
    (record,) = records_of(store)
    weights = sorted(
        (Path(a["path"]).name, a["sha256"]) for a in record["artifacts"] if a["role"] == "weights"
    )
    return record["metrics"], weights


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return finish(tmp_path_factory.mktemp("undisturbed") / "store")


@pytest.mark.parametrize(
    "step", [pytest.param(5, marks=pytest.mark.slow), 90, pytest.param(250, marks=pytest.mark.slow)]
)
def test_killed_at_any_moment_the_same_command_ends_bit_identical(
    step: int, tmp_path: Path, undisturbed: Results
) -> None:
    """The launcher dies by kill -9, and everything with it; then the command is given again."""
    store = tmp_path / "store"
    with spawned(store) as process:
        until(lambda: reached(store, step), 120)
        process.kill()
    until(lambda: not stage_processes(store), 10)
    assert records_of(store) == []

    assert finish(store) == undisturbed

    (record,) = records_of(store)
    resumed = next(s for s in record["stages"] if s["kind"] == "train")["resumed_at_steps"]
    assert step < EVERY or resumed[0] > step - EVERY


def test_ctrl_c_stops_cleanly_and_says_how_to_go_on(tmp_path: Path, undisturbed: Results) -> None:
    store = tmp_path / "store"
    with spawned(store) as process:
        until(lambda: reached(store, 20), 120)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130

    said = store.with_suffix(".said").read_text()
    assert (
        "1 of 1 running stage left a checkpoint. Continue with:\n  mixbench run -m random" in said
    )
    assert "Traceback" not in said
    assert stage_processes(store) == []
    assert list(store.glob("work/*/checkpoint-*.pt"))
    assert finish(store) == undisturbed
