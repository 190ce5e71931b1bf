"""Engines place processes and say truly how they ended; the scheduler draws the conclusions."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest

from mixbench.engines import engine as engines
from mixbench.engines import gpus, local, scheduler
from mixbench.engines.engine import Ended, NotNow
from mixbench.engines.estimate import Estimate, estimate
from mixbench.engines.gpus import Slot, slots_of
from mixbench.engines.local import LocalEngine
from mixbench.engines.run_state import RunState, StageState, mark_cached
from mixbench.engines.scheduler import Limits, Scheduler, gpu_hours
from mixbench.engines.settings import read_settings_file, seconds_of
from mixbench.errors import UsageError
from mixbench.plan.graph import plan
from mixbench.plan.request import Request, cells_of
from mixbench.storage.files import write_json
from mixbench.storage.manifest import MANIFESTS, StageCost
from mixbench.storage.spec import ExecutionOptions, Stage
from mixbench.storage.store import Store
from mixbench.worker.protocol import ELSEWHERE, INPUT_DAMAGED, STOPPED
from tests.support import Run, made_manifest, reached, stage_processes, until


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Run some Python instead of a stage; its arguments are the store and the key."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def use(text: str) -> None:
        name = f"script_{uuid.uuid4().hex}"
        (tmp_path / f"{name}.py").write_text(text)
        command = [sys.executable, "-P", "-m", name]
        monkeypatch.setattr(engines, "stage_command", lambda root, key: [*command, str(root), key])

    return use


@pytest.fixture(params=[(), ("0",)], ids=["forked", "executed"])
def slot(request: pytest.FixtureRequest) -> Slot:
    """A slot without a GPU, whose processes are forked, and one with a GPU, where they are not."""
    return Slot(request.param)


def ended(engine: LocalEngine) -> list[Ended]:
    """Return what ended next."""
    return until(engine.ended)


def content(path: Path) -> str:
    """Return the content of a file as soon as it has some."""
    return until(lambda: path.read_text() if path.exists() else "")


@pytest.mark.full
def test_a_kill_and_an_exit_code_are_told_apart(tmp_path: Path, script: Any, slot: Slot) -> None:
    engine = LocalEngine(tmp_path, [slot])
    script("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    engine.start(["a"], tmp_path / "log")
    assert ended(engine) == [Ended("a", -signal.SIGKILL)]

    script("raise SystemExit(7)")
    engine.start(["b"], tmp_path / "log")
    assert ended(engine) == [Ended("b", 7)]


@pytest.mark.full
def test_a_kill_for_want_of_memory_is_told_apart(
    tmp_path: Path, script: Any, slot: Slot, monkeypatch: pytest.MonkeyPatch
) -> None:
    kills = iter([4, 5])
    monkeypatch.setattr(local, "_memory_kills", lambda: next(kills))
    engine = LocalEngine(tmp_path, [slot])
    script("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    engine.start(["a"], tmp_path / "log")

    assert ended(engine) == [Ended("a", -signal.SIGKILL, "out of memory")]


@pytest.mark.full
def test_an_interrupt_in_the_middle_of_a_look_does_not_hang_the_launcher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mixbench.engines.engine.stage_command", lambda *_: ["sleep", "60"])
    monkeypatch.setattr("mixbench.engines.local.REAP_S", 0.2)
    engine = LocalEngine(tmp_path, [Slot(("0",))])
    engine.start(["a"], tmp_path / "log")
    process: Any = engine._running[0].process
    process._waitpid_lock.acquire()  # and it is never released

    engine.stop(grace_s=0.2)

    process._waitpid_lock.release()
    assert process.wait(5) < 0


@pytest.mark.full
def test_a_stage_that_ignores_its_timeout_is_killed(
    tmp_path: Path, script: Any, slot: Slot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "GRACE_S", 0.3)
    engine = LocalEngine(tmp_path, [slot], timeout_s=0.5)
    script("import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)")
    engine.start(["a"], tmp_path / "log")

    assert ended(engine) == [Ended("a", -signal.SIGKILL, "timeout")]


@pytest.mark.full
def test_a_slot_is_free_when_nothing_of_the_group_lives(
    tmp_path: Path, script: Any, slot: Slot
) -> None:
    """The grandchild ignores all that can be ignored, and outlives its parent."""
    engine = LocalEngine(tmp_path, [slot])
    script(
        "import subprocess, sys, pathlib\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "pathlib.Path(sys.argv[1], 'pid').write_text(str(child.pid))"
    )
    engine.start(["a"], tmp_path / "log")
    before = engine.free
    ended(engine)

    deadline = time.monotonic() + 10
    while not engine.free and time.monotonic() < deadline:
        engine.ended()
        time.sleep(0.02)

    assert (before, engine.free) == (False, True)
    pid = int((tmp_path / "pid").read_text())
    state = Path(f"/proc/{pid}/stat")
    assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] in "ZX"


@pytest.mark.full
def test_a_signal_to_the_whole_group_lets_stages_write_checkpoints(tmp_path: Path) -> None:
    """As `timeout`, SLURM and systemd send it; the server of the processes gets it, too."""
    (tmp_path / "helper.py").write_text("import time\n")  # found beside the method, as by python -m
    (tmp_path / "slow.py").write_text(SLOW)
    environment = os.environ | {"MIXBENCH_STORE": str(tmp_path / "store")}
    command = [sys.executable, "-m", "mixbench", "run", "-m", "./slow.py", "-t", "digits"]
    launcher = subprocess.Popen(
        [*command, "--checkpoint-every", "10000"], cwd=tmp_path, env=environment,
        start_new_session=True, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    until(lambda: reached(tmp_path / "store", 1))
    os.killpg(launcher.pid, signal.SIGTERM)
    _, said = launcher.communicate(timeout=60)

    assert launcher.returncode == 130, said
    assert "Traceback" not in said
    assert list(tmp_path.glob("store/work/*/checkpoint-*"))


SLOW = '''"""Wait a second in every step.

Paper    -
Source   -
Differs  nothing known
"""

import helper

from mixbench.contract import Method, Sources


class Slow(Method):
    """Leave the images as they are, slowly."""

    version = 1

    def mix(self, x, step):
        """Wait."""
        helper.time.sleep(1)
        return x, Sources.unmixed(x)
'''


@pytest.mark.full
def test_without_the_server_its_processes_count_as_killed(tmp_path: Path, script: Any) -> None:
    engine = LocalEngine(tmp_path, [Slot()])
    script("import time; time.sleep(60)")
    engine.start(["a"], tmp_path / "log")
    server: Any = forkserver._forkserver

    os.kill(server._forkserver_pid, signal.SIGKILL)

    assert until(engine.ended) == [Ended("a", -signal.SIGKILL)]
    assert until(lambda: engine.ended() or engine.free)
    engine.start(["b"], tmp_path / "log")  # by another server
    engine.stop(grace_s=0.1)


@pytest.mark.full
def test_without_a_place_for_sockets_processes_are_new_ones(
    mixbench_process: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fast: tuple[str, ...]
) -> None:
    """The path of a socket has at most 107 bytes."""
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))

    done = mixbench_process("run", "-m", "random_patchmix", "-t", "digits", *fast)

    assert done.returncode == 0, done.stderr


@pytest.mark.full
def test_nothing_survives_a_dead_launcher(tmp_path: Path, script: Any, slot: Slot) -> None:
    script(
        "import os, subprocess, sys, time, pathlib\n"
        "from mixbench.worker.__main__ import _lifeline\n"
        "from mixbench.worker.processes import supervised\n"
        "if supervised(_lifeline()) is not None: sys.exit()\n"
        "alone = subprocess.Popen(['sleep', '60'], start_new_session=True)\n"
        "pathlib.Path(sys.argv[1], sys.argv[2] + 'x').write_text(str(alone.pid))\n"
        "pathlib.Path(sys.argv[1], sys.argv[2]).write_text(str(os.getpid()))\n"
        "time.sleep(60)"
    )
    code = (
        "import time; from pathlib import Path\n"
        "from mixbench.engines import engine, local, gpus\n"
        f"command = {engines.stage_command(tmp_path, '')[:-1]}\n"
        "engine.stage_command = lambda root, key: [*command, key]\n"
        f"root = Path({str(tmp_path)!r})\n"
        f"e = local.LocalEngine(root, [gpus.Slot({slot.gpus!r})] * 2)\n"
        "[e.start([key], root / 'log') for key in 'ab']; time.sleep(60)"
    )
    launcher = subprocess.Popen([sys.executable, "-c", code])
    pids = [int(content(tmp_path / name)) for name in ("a", "b", "ax", "bx")]

    launcher.kill()
    launcher.wait()

    deadline = time.monotonic() + 10
    while any(lives(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(lives(pid) for pid in pids)


@pytest.mark.full
@pytest.mark.parametrize(
    ("end", "code"), [("sys.exit(3)", 3), ("os.kill(os.getpid(), 9)", -9), ("os.abort()", -6)]
)
def test_what_a_stage_starts_ends_with_it(
    tmp_path: Path, script: Any, slot: Slot, end: str, code: int
) -> None:
    script(
        "import os, subprocess, sys, pathlib\n"
        "from mixbench.worker.processes import supervised\n"
        "if (code := supervised(None)) is not None: sys.exit(code)\n"
        "alone = subprocess.Popen(['sleep', '60'], start_new_session=True)\n"
        "pathlib.Path(sys.argv[1], 'a').write_text(str(alone.pid))\n" + end
    )
    engine = LocalEngine(tmp_path, [slot])
    engine.start(["a"], tmp_path / "log")

    (ended,) = until(engine.ended)

    assert ended.code == code
    assert not lives(int(content(tmp_path / "a")))


def lives(pid: int) -> bool:
    path = Path(f"/proc/{pid}/stat")
    try:
        return path.read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_gpus_are_shared_after_they_are_spread_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,3")

    shared = slots_of(gpus=["0", "3"], per_gpu=2)
    whole = slots_of(size=2)

    assert [slot.gpus for slot in shared] == [("0",), ("3",), ("0",), ("3",)]
    assert shared[0].share == 0.5
    assert shared[1].environment["CUDA_VISIBLE_DEVICES"] == "3"
    assert shared[1].environment["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert [slot.gpus for slot in whole] == [("0", "1")]


@pytest.mark.parametrize(
    ("there", "asked", "said"),
    [("0,1", {"gpus": ["0", "5"]}, "no GPU 5 on this machine"),
     ("0,1", {"size": 3}, "must be at most the 2 GPUs"),
     ("0,1", {"size": 2, "per_gpu": 2}, "a cell uses 2 whole GPUs"),
     ("", {"per_gpu": 2}, "this machine has no GPU"), ("", {"gpus": ["0"]}, "it has: none")],
)  # fmt: skip
def test_slots_that_cannot_be_are_refused(
    monkeypatch: pytest.MonkeyPatch, there: str, asked: dict[str, Any], said: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", there)

    with pytest.raises(UsageError, match=said):
        slots_of(**asked)


def test_gpus_are_counted_by_nvidias_library(monkeypatch: pytest.MonkeyPatch) -> None:
    import pynvml

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlShutdown", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 3)
    assert gpus.installed_gpus() == ["0", "1", "2"]

    def absent() -> None:
        raise pynvml.NVMLError_LibraryNotFound

    monkeypatch.setattr(pynvml, "nvmlInit", absent)
    assert gpus.installed_gpus() == []


class Scripted:
    """An engine whose stages end as a list says, one after the other."""

    num_slots, gpus, gpus_alone, outlives, free = 9, 1.0, 1.0, False, True

    def __init__(self, store: Store, ends: list[Any]) -> None:
        self.store, self.ends, self.started = store, ends, list[str]()
        self.going: list[str] = []

    def adopt(self, keys: Any) -> set[str]:
        return set()

    def start(self, keys: Sequence[str], log: Path) -> None:
        self.started += keys
        self.going += keys

    def ended(self) -> list[Ended]:
        found = []
        for key in self.going:
            end = self.ends.pop(0)
            if end == "done":
                write_json(self.store.folder(key) / "manifest.json", {"files": {}})
                end = 0
            if isinstance(end, str):
                write_json(
                    self.store.work(key) / "failure.json", {"status": "failed", "reason": end}
                )
                end = 1
            found.append(Ended(key, end) if not isinstance(end, tuple) else Ended(key, *end))
        self.going = []
        return found

    def place(self, key: str) -> str:
        return ""

    def cancel(self, key: str) -> None: ...
    def stop(self) -> None: ...


class Told:
    def __init__(self) -> None:
        self.notices: list[str] = []

    def update(self, board: RunState, engine: Any) -> None: ...
    def notice(self, text: str) -> None:
        self.notices.append(text)


def settled(
    tmp_path: Path, *ends: Any, seeds: Sequence[int] = (0,), **limits: Any
) -> tuple[RunState, Scripted, list[str]]:
    """Return the board of cells (training, evaluation) whose stages ended so."""
    store = Store(tmp_path)
    store.open()
    board = RunState(plan(cells_of(Request(["none"], ["digits"], seeds))), store, 9, gpus=1.0)
    told = Told()
    mark_cached(board, told.notice)
    engine = Scripted(store, list(ends))
    Scheduler(board, engine, told, lambda _: None, ExecutionOptions(), Limits(**limits)).run()
    return board, engine, told.notices


def statuses(board: RunState) -> list[str]:
    return [state.status for state in board.states.values()]


@pytest.mark.parametrize("lost", [-9, -15, -11, None, STOPPED])
def test_a_lost_stage_is_started_again(tmp_path: Path, lost: int | None) -> None:
    board, engine, told = settled(tmp_path, lost, lost, "done", "done")

    assert statuses(board) == ["done", "done"]
    assert len(engine.started) == 4
    assert sum("attempt 2 of 3, from its checkpoint" in text for text in told) == 1


def test_a_stage_that_is_lost_again_and_again_has_failed(tmp_path: Path) -> None:
    board, engine, _ = settled(tmp_path, -9, -9, retries=1)

    assert statuses(board) == ["failed", "skipped"]
    assert len(engine.started) == 2
    assert "killed by SIGKILL" in next(iter(board.states.values())).reason


@pytest.mark.parametrize(
    "end", ["ValueError: no", 3, (-9, "out of memory"), (-9, "timeout"), (143, "cancelled")]
)
def test_an_error_is_never_tried_again(tmp_path: Path, end: Any) -> None:
    board, engine, _ = settled(tmp_path, end)

    assert statuses(board) == ["failed", "skipped"]
    assert len(engine.started) == 1
    assert "its stage train failed" in list(board.states.values())[1].reason


def test_a_result_counts_whatever_the_exit_code(tmp_path: Path) -> None:
    store = Store(tmp_path)
    board, _, _ = settled(tmp_path, "done", "done")

    assert statuses(board) == ["done", "done"]
    assert all(store.finished(key) for key in board.states)


def test_an_exit_code_that_the_engine_cannot_know_is_read_from_the_store(tmp_path: Path) -> None:
    store = Store(tmp_path)
    write_json(store.work("k") / "ended.json", {"code": INPUT_DAMAGED})

    assert store.exit_code("k") == INPUT_DAMAGED
    assert store.exit_code("other") is None


def test_no_stage_starts_past_the_budget(tmp_path: Path) -> None:
    board, engine, told = settled(tmp_path, "done", gpu_hours=1e-9)

    assert statuses(board) == ["done", "skipped"]
    assert len(engine.started) == 1
    assert gpu_hours(board) > 1e-9
    assert "No further stages are started" in told[0]


def alone(tmp_path: Path, ends: list[Any], *seeds: int) -> tuple[Scheduler, Scripted, Told]:
    """Return a scheduler of some cells that nothing has run yet."""
    store = Store(tmp_path)
    store.open()
    board = RunState(plan(cells_of(Request(["none"], ["digits"], seeds))), store, 9)
    mark_cached(board, print)
    engine, told = Scripted(store, ends), Told()
    options = ExecutionOptions()
    return Scheduler(board, engine, told, lambda _: None, options), engine, told


def test_a_stage_that_another_launcher_runs_comes_last_and_holds_no_slot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "LOOK_ELSEWHERE_S", 0.1)
    one, engine, _ = alone(tmp_path, ["done"] * 4, 0, 1)
    first, second = (chain[-2] for chain in one.board.plan.chains)

    with one.board.store.lease(first).held(lambda: None):
        one._advance()
        one._advance()
        one._advance()
        assert engine.started == [second, one.board.plan.chains[1][-1]]
    one.run()

    assert engine.started[2:] == [first, one.board.plan.chains[0][-1]]
    assert statuses(one.board) == ["done"] * 4


def test_a_stage_that_another_launcher_finished_is_not_run(tmp_path: Path) -> None:
    one, engine, _ = alone(tmp_path, ["done"], 0)
    trained, evaluated = one.board.plan.chains[0]
    finish(one.board.store, one.board.plan.stages[trained], 1.0, 0.0)

    one.run()

    assert engine.started == [evaluated]
    assert statuses(one.board) == ["cached", "done"]


def test_a_stage_that_another_process_turned_out_to_run_is_started_again(tmp_path: Path) -> None:
    one, engine, told = alone(tmp_path, [ELSEWHERE, "done", "done"], 0)

    one.run()

    assert len(engine.started) == 3
    assert (statuses(one.board), told.notices) == (["done", "done"], [])


def test_a_cluster_that_takes_no_stage_now_is_asked_again(tmp_path: Path) -> None:
    one, engine, told = alone(tmp_path, ["done", "done"], 0)
    start, refusals = engine.start, iter([True, True, False, False])

    def refuse(keys: Sequence[str], log: Path) -> None:
        if next(refusals):
            raise NotNow("the queue is full")
        start(keys, log)

    engine.start = refuse  # type: ignore[method-assign]
    one.run()

    assert statuses(one.board) == ["done", "done"]
    assert told.notices == ["the queue is full"]


def test_the_budget_counts_what_other_commands_ran(tmp_path: Path) -> None:
    store = Store(tmp_path)
    planned = plan(cells_of(Request(["none"], ["digits"], [0, 1])))
    for key in planned.chains[0]:
        finish(store, planned.stages[key], 1.0, 1800.0)

    board, engine, _ = settled(tmp_path, seeds=[0, 1], gpu_hours=1)

    assert engine.started == []
    assert statuses(board) == ["cached", "cached", "skipped", "skipped"]


def test_finished_cells_are_reported_although_nothing_runs(tmp_path: Path) -> None:
    planned = plan(cells_of(Request(["none"], ["digits"], [0, 1])))
    for key in planned.stages:
        finish(Store(tmp_path), planned.stages[key], 1.0, 0.0)
    one, engine, _ = alone(tmp_path, [], 0, 1)
    reported: list[int] = []
    one._on_cell = reported.append

    assert not one.board.complete
    one.run()

    assert (engine.started, reported) == ([], [0, 1])
    assert one.board.complete


def test_a_corrupt_training_of_a_finished_cell_is_computed_again_before_the_cell_is_reported(
    tmp_path: Path,
) -> None:
    one, engine, _ = alone(tmp_path, ["done"], 0)
    ((trained, evaluated),) = one.board.plan.chains
    one.board = RunState(one.board.plan, one.board.store, 9)
    one.board.begin({evaluated: StageState("cached"), trained: StageState()})
    reported: list[list[str]] = []
    one._on_cell = lambda _: reported.append(statuses(one.board)[::-1])

    one.run()

    assert engine.started == [trained]
    assert reported == [["done", "cached"]]


def taken(board: RunState, size: int) -> list[list[str]]:
    """Return all stages that can start, grouped by process."""
    return list(iter(lambda: board.take(size), []))


def test_trainings_that_are_alike_share_a_process(tmp_path: Path) -> None:
    board = RunState(
        plan(cells_of(Request(["none", "mixup", "cutmix"], ["digits"], [0, 1]))), Store(tmp_path), 9
    )
    board.gpus = 1.0
    mark_cached(board, lambda _: None)

    alone = taken(board, 1)
    for (key,) in alone:
        board.enqueue(key)
    packed = taken(board, 4)

    assert [len(pack) for pack in alone] == [1] * 6
    assert [len(pack) for pack in packed] == [4, 2]
    assert [*chain(*packed)] == [*chain(*alone)]
    nets = (
        cells_of(Request(["none"], ["digits"], [0], model=net)) for net in ("resnet8", "resnet14")
    )
    board = RunState(plan([*chain(*nets)]), Store(tmp_path), 9)
    mark_cached(board, lambda _: None)
    assert [len(pack) for pack in taken(board, 4)] == [1, 1]


def test_stages_of_a_process_share_its_gpu_hours(tmp_path: Path) -> None:
    cells = cells_of(Request(["none", "mixup"], ["digits"], [0]))
    board = RunState(plan(cells), Store(tmp_path), 9, gpus=1.0)
    mark_cached(board, lambda _: None)
    for key in board.take(2):
        board.put(key, StageState("running", started=time.monotonic() - 3600, sharing=2))

    assert gpu_hours(board) == pytest.approx(1, abs=0.01)


def test_what_unblocks_most_starts_first(tmp_path: Path) -> None:
    request = Request(["none", "guided_patchmix", "random_patchmix"], ["digits"], [0])
    board = RunState(plan(cells_of(request)), Store(tmp_path), 1)
    mark_cached(board, print)

    first = board.plan.stages[board.take()[0]]

    assert first.run.method.name == "random_patchmix"
    assert first.kind == "train"


def finish(store: Store, stage: Stage, wall_s: float, gpu_s: float) -> None:
    """Put a finished stage into a store."""
    manifest = made_manifest(stage, StageCost(wall_s, gpu_s))
    MANIFESTS.write(store.folder(stage.key) / "manifest.json", manifest)


def test_costs_are_foreseen_by_earlier_stages(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.open()
    stages = list(plan(cells_of(Request(["none"], ["digits"], [0, 1]))).stages.values())
    first, *others = stages
    finish(store, first, wall_s=120.0, gpu_s=60.0)  # a training of 60 epochs
    longer = replace(others[1], num_epochs=120)

    found = estimate([longer, *others[::2]], store)

    assert (first.kind, longer.kind) == ("train", "train")
    assert found == Estimate(240.0, 120.0, stages=3, unknown=2)


def test_nothing_is_foreseen_of_what_never_ran(tmp_path: Path) -> None:
    store = Store(tmp_path)
    stages = plan(cells_of(Request(["none"], ["digits"], [0]))).stages.values()

    assert estimate(stages, store) == Estimate(0.0, 0.0, stages=2, unknown=2)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("1h30m", 5400), ("2d", 172800), ("1 h", 3600)]
)
def test_time_spans_are_read(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize(
    ("text", "said"),
    [("engine = 'condor'", "engine: .*'condor'"), ("[local]\ngpu = ['0']", "local.gpu: .*"),
     ("timeout = 'soon'", "timeout: .*time span"), ("engine = ", "cannot be read"),
     ("[slurm]\npoll_s = 0", "slurm.poll_s: .*greater than 0")],
)  # fmt: skip
def test_settings_that_are_none_are_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "mixbench.toml"
    path.write_text(text)

    with pytest.raises(UsageError, match=said):
        read_settings_file(path)


def test_settings_are_found_where_the_command_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_settings_file(None).retries == 2
    (tmp_path / "mixbench.toml").write_text("retries = 5\n[local]\njobs_per_gpu = 3")

    assert read_settings_file(None).retries == 5
    assert read_settings_file(None).local.jobs_per_gpu == 3


@pytest.mark.parametrize(
    ("options", "said"),
    [(["--timeout", "soon"], "--timeout must be a time span"),
     (["--max-gpu-hours", "1"], "there are no GPUs here"),
     (["--engine", "slurm"], "sbatch is not installed on this machine"),
     (["--detach"], "--detach needs --engine slurm, whose jobs outlive this shell (got local)"),
     (["--gpus", "7"], "no GPU 7 on this machine"),
     (["--settings", "none.toml"], "settings none.toml cannot be read")],
)  # fmt: skip
def test_means_that_are_not_there_are_refused(
    mixbench: Run, monkeypatch: pytest.MonkeyPatch, options: list[str], said: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("PATH", "/nowhere")

    done = mixbench("run", "-m", "none", "-t", "digits", *options)

    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.full
@pytest.mark.parametrize("who", ["stage", "supervisor"])
def test_a_training_that_is_killed_goes_on_by_itself(tmp_path: Path, who: str) -> None:
    environment = os.environ | {"MIXBENCH_STORE": str(tmp_path / "store")}
    command = [sys.executable, "-m", "mixbench", "run", "-m", "none", "-t", "digits"]
    command += ["--set", "digits.epochs=6", "--checkpoint-every", "3"]
    launcher = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    )
    until(lambda: list(tmp_path.glob("store/work/*/checkpoint-*")))
    supervisor, stage = sorted(stage_processes(tmp_path / "store"))
    os.kill(stage if who == "stage" else supervisor, signal.SIGKILL)
    _, said = launcher.communicate(timeout=120)

    assert launcher.returncode == 0, said
    assert "killed by SIGKILL; attempt 2 of 3" in said
    (path,) = (tmp_path / "store").glob("records/*/*/*.json")
    (train,) = (s for s in json.loads(path.read_text())["stages"] if s["kind"] == "train")
    assert train["resumed_at_steps"]


def test_states_count_their_attempts() -> None:
    assert StageState().attempts == 0
