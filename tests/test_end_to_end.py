"""The program as a user runs it: digits, generated images, one epoch."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]
STARTED = "stages: "


def stages_of(store: Path) -> dict[str, float]:
    """Return every finished stage with the time at which it was finished."""
    return {p.parent.name: p.stat().st_mtime for p in store.glob("stages/*/manifest.json")}


def records_of(store: Path) -> list[dict[str, Any]]:
    return [json.loads(p.read_text()) for p in sorted(store.glob("records/*/*/*.json"))]


def test_a_run_ends_in_a_leaderboard_and_repeats_nothing(
    mixbench: Run, fast: tuple[str, ...], tmp_path: Path
) -> None:
    command = ("run", "-m", "none,mixup", "-m", "random_patchmix", "-t", "digits", *fast)

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
    mixbench("run", "-m", "none", "-t", "digits", *fast)
    mixbench("run", "-m", "mixup", "-t", "digits", *fast)

    paid, shared = sorted(records_of(tmp_path / "store"), key=lambda r: r["created"])

    assert [s["kind"] for s in paid["stages"]] == ["data", "train", "evaluate"]
    assert [s["state"] for s in paid["stages"]] == ["ran", "ran", "ran"]
    assert [s["state"] for s in shared["stages"]] == ["reused", "ran", "ran"]
    assert paid["stages"][0]["key"] == shared["stages"][0]["key"]
    assert shared["cost"]["wall_s_marginal"] < shared["cost"]["wall_s_total"]
    assert shared["cost"]["images"] == 1000
    assert {a["role"] for a in paid["artifacts"]} == {"weights", "curve", "metrics", "predictions"}


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
    assert {row["state"] for row in status["cells"]} == {"finished"}
    assert len(json.loads(mixbench("cache", "ls", "--json").stdout)) == 3
    why = json.loads(mixbench("cache", "why", *cell, "--json").stdout)
    assert [row["why"] for row in why] == [[], [], []]
    assert "mixup" in json.loads(mixbench("list", "methods", "--json").stdout)
    info = json.loads(mixbench("info", "digits", "--json").stdout)
    assert info["declared"]["protocols"]["paper"]["epochs"] == 400
    assert all(row["ok"] for row in json.loads(mixbench("doctor", "--json").stdout))


def test_readers_answer_in_text(mixbench: Run, fast: tuple[str, ...], tmp_path: Path) -> None:
    cell = ("-m", "mixup", "-t", "digits", *fast)
    mixbench("run", *cell)

    assert "| mixup" in mixbench("report", "--format", "markdown").stdout
    assert mixbench("report", "--format", "csv").stdout.startswith("method,rank,n,mean")
    assert "finished 3" in mixbench("status").stdout
    assert "train digits" in mixbench("logs", "mixup").stdout
    assert "3 stages" in mixbench("cache", "ls").stdout
    changed = mixbench("cache", "why", *cell, "--set", "mixup.alpha=0.5").stdout
    assert "no such stage is stored" in changed
    assert "method.parameters" not in changed
    (tmp_path / "store" / "damaged" / "x").mkdir(parents=True)
    assert "1 folders would be removed" in mixbench("cache", "gc", "--dry-run").stdout
    assert "1 folders removed" in mixbench("cache", "gc").stdout
    assert len(stages_of(tmp_path / "store")) == 3


def spawn(arguments: tuple[str, ...], store: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "mixbench", *arguments],
        env=os.environ | {"MIXBENCH_STORE": str(store)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_step(store: Path, step: int, limit_s: float = 120) -> None:
    """Wait until some stage has passed a step."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        for path in store.glob("work/*/progress.jsonl"):
            lines = path.read_text().splitlines()[:-1]
            if lines and json.loads(lines[-1])["step"] >= step:
                return
        time.sleep(0.02)
    pytest.fail(f"no stage reached step {step} in {limit_s} s")


def survivors(store: Path) -> list[str]:
    """Return the command lines of stages of the store that are still processes."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if "mixbench.stage" in line and str(store) in line:
            found.append(line)
    return found


LONG = ("run", "-m", "random_patchmix", "-t", "digits", "--data", "synthetic",
        "--set", "digits.epochs=12", "--checkpoint-every", "7")  # fmt: skip


def results_of(store: Path) -> tuple[Any, Any]:
    (record,) = records_of(store)
    weights = sorted(
        (Path(a["path"]).name, a["sha256"]) for a in record["artifacts"] if a["role"] == "weights"
    )
    return record["metrics"], weights


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    store = tmp_path_factory.mktemp("undisturbed")
    done = spawn(LONG, store)
    assert done.wait(300) == 0
    return results_of(store)


@pytest.mark.parametrize("step", [5, 43, 97])
def test_killed_at_any_moment_the_same_command_ends_bit_identical(
    step: int, tmp_path: Path, undisturbed: tuple[Any, Any]
) -> None:
    """The launcher dies by kill -9, and everything with it; then the command is given again."""
    first = spawn(LONG, tmp_path)
    wait_for_step(tmp_path, step)
    first.kill()
    first.wait()
    deadline = time.monotonic() + 10
    while survivors(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert survivors(tmp_path) == []
    assert records_of(tmp_path) == []

    second = spawn(LONG, tmp_path)

    assert second.wait(300) == 0, second.stderr
    assert results_of(tmp_path) == undisturbed
    (record,) = records_of(tmp_path)
    resumed = next(s for s in record["stages"] if s["kind"] == "train")["resumed_at_steps"]
    assert resumed == [] if step < 7 else resumed[0] >= step - 7


def test_ctrl_c_stops_cleanly_and_says_how_to_go_on(
    tmp_path: Path, undisturbed: tuple[Any, Any]
) -> None:
    first = spawn(LONG, tmp_path)
    wait_for_step(tmp_path, 20)
    first.send_signal(signal.SIGINT)
    _, said = first.communicate(timeout=60)

    assert first.returncode == 130
    assert survivors(tmp_path) == []
    assert "Continue with:\n  mixbench run -m random_patchmix -t digits" in said
    assert list(tmp_path.glob("work/*/checkpoint-*.pt"))
    assert "Traceback" not in said

    second = spawn(LONG, tmp_path)
    assert second.wait(300) == 0
    assert results_of(tmp_path) == undisturbed
