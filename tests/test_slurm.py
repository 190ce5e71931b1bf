"""Stages as jobs of a real SLURM of two nodes on this machine: placed, lost, found again."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from mixbench.engines import engine as engines
from mixbench.engines import slurm, slurm_queue
from mixbench.engines.engine import Ended, NotNow
from mixbench.engines.settings import SlurmSettings
from mixbench.engines.slurm import SlurmEngine, resources_of
from mixbench.errors import MixbenchError, UsageError
from mixbench.storage.store import Store
from tests.support import made_spec, until

SCRIPTS = Path(__file__).parent / "clusters"
QUICK = {"poll_s": 0.3, "settle_s": 1.0}
pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(
        not (shutil.which("slurmctld") or Path("/usr/sbin/slurmctld").exists()),
        reason="SLURM is not installed: tests/clusters/install_slurm.sh",
    ),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cluster of two nodes with two make-believe GPUs each."""
    folder = tmp_path_factory.mktemp("slurm")
    environment = os.environ | {"PATH": f"{os.environ['PATH']}:/usr/sbin"}
    up = [str(SCRIPTS / "slurm_up.sh"), str(folder), str(free_port())]
    done = subprocess.run(up, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:  # a machine's name that does not resolve, for instance
        pytest.skip(f"SLURM does not start here: {done.stdout}{done.stderr}")
    yield folder
    subprocess.run([str(SCRIPTS / "slurm_down.sh"), str(folder)], env=environment, check=False)


@pytest.fixture(autouse=True)
def _on_the_cluster(cluster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CONF", str(cluster / "slurm.conf"))


def free_port() -> int:
    """Return a port from which three are free, as far as one can know."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
    return port


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    store.open()
    return store


@pytest.fixture
def engine(store: Store) -> Iterator[SlurmEngine]:
    settings = SlurmSettings(**QUICK)  # type: ignore[arg-type]
    engine = SlurmEngine(store, settings, resources_of(settings))
    yield engine
    for key in list(engine._jobs):
        engine.cancel(key)


@pytest.fixture
def script(store: Store, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Run some shell instead of the stage of a key."""
    texts: dict[str, str] = {}
    monkeypatch.setattr(engines, "stage_command", lambda _root, key: ["bash", "-c", texts[key]])

    def use(key: str, text: str) -> None:
        texts[key] = text
        store.write_spec(key, made_spec())

    return use


def test_a_stage_gets_a_gpu_and_leaves_word(engine: SlurmEngine, store: Store, script: Any) -> None:
    ended = store.work("a") / "ended.json"
    script("a", f"echo GPU $CUDA_VISIBLE_DEVICES; echo '{{\"code\": 75}}' > {ended}; exit 75")

    engine.start(["a"], store.log("a"))

    assert engine.gpus == 1
    assert until(engine.ended) == [Ended("a", None)]
    assert store.exit_code("a") == 75
    assert store.log("a").read_text() in {"GPU 0\n", "GPU 1\n"}


def test_four_stages_share_a_gpu(store: Store, script: Any) -> None:
    settings = SlurmSettings(jobs_per_gpu=4, **QUICK)  # type: ignore[arg-type]
    resources = resources_of(settings)
    engine = SlurmEngine(store, settings, resources)

    for key in "abcdefgh":
        script(key, "sleep 20")
        engine.start([key], store.log(key))

    assert resources == (1, "shard:1", 0.25)
    until(lambda: not engine.ended() and all(" on n" in engine.place(key) for key in "abcdefgh"))
    for key in "abcdefgh":
        engine.cancel(key)


def test_it_says_where_a_stage_runs_or_why_it_waits(
    engine: SlurmEngine, store: Store, script: Any
) -> None:
    for key in "abcde":  # one more than there are GPUs
        script(key, "sleep 20")
        engine.start([key], store.log(key))

    def places() -> list[str]:
        assert engine.ended() == []
        return [engine.place(key) for key in "abcde"]

    until(lambda: sum(" on n" in place for place in places()) == 4)
    assert until(lambda: [p for p in places() if "(Resources)" in p or "(Priority)" in p])


def test_a_cancelled_stage_says_so(engine: SlurmEngine, store: Store, script: Any) -> None:
    script("a", "exec sleep 60")
    engine.start(["a"], store.log("a"))
    until(lambda: not engine.ended() and " on n" in engine.place("a"))

    engine.cancel("a")

    assert until(engine.ended) == [Ended("a", None, "cancelled")]


def test_a_killed_stage_leaves_no_word(engine: SlurmEngine, store: Store, script: Any) -> None:
    script("a", "kill -KILL $$")
    engine.start(["a"], store.log("a"))

    assert until(engine.ended) == [Ended("a", None)]
    assert store.exit_code("a") is None


def test_a_later_launcher_finds_what_runs(engine: SlurmEngine, store: Store, script: Any) -> None:
    script("a", "sleep 20")
    engine.start(["a"], store.log("a"))
    settings = SlurmSettings(**QUICK)  # type: ignore[arg-type]
    later = SlurmEngine(store, settings, resources_of(settings))

    assert later.adopt(["a", "b"]) == {"a"}
    assert later.ended() == []
    assert later.place("a") == engine.place("a") or "on n" in later.place("a")
    assert later._jobs["a"].number == engine._jobs["a"].number


def test_jobs_of_another_store_are_not_ours(
    engine: SlurmEngine, store: Store, script: Any, tmp_path: Path
) -> None:
    script("a", "sleep 20")
    engine.start(["a"], store.log("a"))
    settings = SlurmSettings(**QUICK)  # type: ignore[arg-type]

    assert SlurmEngine(Store(tmp_path / "b"), settings, resources_of(settings)).adopt("a") == set()


def test_a_controller_that_does_not_answer_proves_nothing(
    engine: SlurmEngine, store: Store, script: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    script("a", "sleep 3")
    engine.start(["a"], store.log("a"))
    monkeypatch.setattr(slurm_queue, "PATIENCE_S", 1)
    with monkeypatch.context() as cut:
        cut.setenv("SLURM_CONF", "/nowhere")
        time.sleep(1.5)
        assert engine.ended() == []
        with pytest.raises(MixbenchError, match="controller does not answer"):
            engine.adopt(["a"])

    assert until(engine.ended) == [Ended("a", None)]


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"partition": "nowhere"}, "invalid partition"), ({"gres": "gpu:99"}, "node configuration"),
     ({"options": ("--nonsense",)}, "unrecognized option")],
)  # fmt: skip
def test_a_job_that_slurm_refuses_is_one_sentence(
    store: Store, script: Any, changes: dict[str, Any], said: str
) -> None:
    settings = SlurmSettings(**changes)
    engine = SlurmEngine(store, settings, resources_of(settings))
    script("a", "true")

    with pytest.raises(UsageError, match=f"SLURM refused a job .*{said}"):
        engine.start(["a"], store.log("a"))


@pytest.mark.parametrize("said", [
    "error: QOSMaxSubmitJobPerUserLimit\nBatch job submission failed: Job violates accounting/QOS "
    "policy (job submit limit, user's size and/or time limits)",
    "error: Slurm temporarily unable to accept job, sleeping and retrying",
    "error: Batch job submission failed: Socket timed out on send/recv operation",
])  # fmt: skip
def test_a_stage_that_slurm_does_not_take_now_waits(
    engine: SlurmEngine, store: Store, script: Any, tmp_path: Path, said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    refusing = tmp_path / "bin/sbatch"
    refusing.parent.mkdir()
    refusing.write_text(f"#!/bin/sh\ncat >&2 <<'END'\nsbatch: {said}\nEND\nexit 1\n")
    refusing.chmod(0o755)
    monkeypatch.setattr(slurm, "FIRST_PAUSE_S", 1.0)
    engine._pause_s = 1.0
    script("a", "sleep 20")

    with monkeypatch.context() as limited:
        limited.setenv("PATH", f"{refusing.parent}:{os.environ['PATH']}")
        for _ in range(2):
            until(lambda: engine.free)
            with pytest.raises(NotNow, match=r"takes no more jobs for now \(sbatch: error"):
                engine.start(["a"], store.log("a"))
            assert not engine.free
    until(lambda: engine.free)
    engine.start(["a"], store.log("a"))

    assert engine.place("a")


def test_a_stage_waits_while_the_controller_is_away(
    engine: SlurmEngine, store: Store, script: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "FIRST_PAUSE_S", 0.2)
    monkeypatch.setattr(slurm_queue, "PATIENCE_S", 2)
    engine._pause_s = 0.2
    script("a", "sleep 20")
    with monkeypatch.context() as cut:
        cut.setattr(slurm_queue, "call", lambda *_: None)
        for _ in range(3):
            until(lambda: engine.free)
            with pytest.raises(NotNow):
                engine.start(["a"], store.log("a"))
    until(lambda: engine.free)
    engine.start(["a"], store.log("a"))

    assert engine.place("a")


def test_a_job_that_was_submitted_without_an_answer_is_found(
    engine: SlurmEngine, store: Store, script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = tmp_path / "bin/sbatch"
    silent.parent.mkdir()
    silent.write_text(f'#!/bin/sh\n{shutil.which("sbatch")} "$@"\nsleep 20\n')
    silent.chmod(0o755)
    script("a", "sleep 20")
    with monkeypatch.context() as slow:
        slow.setenv("PATH", f"{silent.parent}:{os.environ['PATH']}")
        slow.setattr(slurm_queue, "PATIENCE_S", 2)
        with pytest.raises(NotNow, match="did not answer"):
            engine.start(["a"], store.log("a"))

    engine.start(["a"], store.log("a"))

    name = slurm_queue.job_name(store, "a")
    command = ["squeue", "--noheader", "--name", name, "--format", "%i"]
    jobs = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert jobs == [engine._jobs["a"].number]


def test_an_evaluation_does_not_ask_for_the_gpus_of_a_training(store: Store) -> None:
    settings = SlurmSettings(nodes=2, gres="gpu:tesla:2")
    engine = SlurmEngine(store, settings, resources_of(settings, 2))
    log = store.log("a")

    training, evaluation = (engine.job("a", kind, log) for kind in ("train", "evaluate"))

    assert {"--gres=gpu:tesla:2", "--nodes=2"} <= {*training.options}
    assert {"--gres=gpu:tesla:1", "--nodes=1"} <= {*evaluation.options}
    assert (engine.gpus, engine.gpus_alone) == (2, 1)


@pytest.mark.parametrize("name", ["my project", "100%job", 'it\'s "quoted"'])
def test_paths_with_any_characters_reach_the_job(name: str, tmp_path: Path, script: Any) -> None:
    odd = Store(tmp_path / name)
    odd.open()
    settings = SlurmSettings(**QUICK)  # type: ignore[arg-type]
    engine = SlurmEngine(odd, settings, resources_of(settings))
    script("a", "echo here")
    odd.write_spec("a", made_spec())

    engine.start(["a"], odd.log("a"))

    assert until(engine.ended) == [Ended("a", None)]
    assert odd.log("a").read_text() == "here\n"


def test_a_dry_run_shows_the_first_job(tmp_path: Path) -> None:
    (tmp_path / "mixbench.toml").write_text("[slurm]\npartition = 'debug'\noptions = ['--qos=low']")
    done = subprocess.run(
        [sys.executable, "-m", "mixbench", *FAST, "--dry-run"],
        cwd=tmp_path, env=os.environ | {"MIXBENCH_STORE": str(tmp_path / "store")}, text=True,
        capture_output=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    job = done.stdout.partition("The first job:\n")[2]
    assert job.startswith("sbatch --job-name=mixbench-")
    assert "--partition=debug" in job
    assert "--qos=low <<'END'\n#!/bin/bash\nexec " in job


FAST = ["run", "-m", "none,mixup", "-t", "digits", "--set", "digits.epochs=12", "--engine", "slurm"]


def launched(folder: Path) -> subprocess.Popen[str]:
    """Return a launcher of two cells."""
    (folder / "mixbench.toml").write_text(
        "[slurm]\npoll_s = 0.5\nsettle_s = 2\ngres = 'shard:1'\n"
        "setup = ['export OMP_NUM_THREADS=1']"
    )
    environment = os.environ | {"MIXBENCH_STORE": str(folder / "store")}
    return subprocess.Popen(
        [sys.executable, "-m", "mixbench", *FAST],
        cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def queue() -> list[str]:
    """Return the running jobs' numbers."""
    command = ["squeue", "--me", "--noheader", "--states", "RUNNING", "--format", "%i"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def started(store: Path) -> list[str]:
    """Return every start of a stage, by what its log says."""
    logs = [path.read_text().splitlines() for path in store.glob("logs/*.txt")]
    return [line for lines in logs for line in lines if " digits/" in line]


def records(folder: Path) -> list[dict[str, Any]]:
    paths = sorted((folder / "store").glob("records/*/*/*.json"))
    return [json.loads(path.read_text()) for path in paths]


@pytest.mark.slow
def test_a_killed_launcher_finds_its_jobs_again(tmp_path: Path) -> None:
    with launched(tmp_path) as launcher:
        until(lambda: len(queue()) == 2, 30)
        launcher.kill()
        launcher.communicate()

    with launched(tmp_path) as again:
        _, said = again.communicate(timeout=150)

    assert again.returncode == 0, said
    assert said.count("adopted  train") == 2
    assert [record["status"] for record in records(tmp_path)] == ["ok", "ok"]
    assert len(started(tmp_path / "store")) == 4  # each of the four stages exactly once


@pytest.mark.slow
def test_killed_and_preempted_jobs_go_on(tmp_path: Path) -> None:
    with launched(tmp_path) as launcher:
        until(lambda: len([*tmp_path.glob("store/work/*/progress.jsonl")]) == 2, 40)
        for number, how in zip(queue(), (signal.SIGKILL, signal.SIGTERM), strict=True):
            stages = having(f"SLURM_JOB_ID={number}\0") & having("mixbench.worker\0")
            os.kill(max(stages), how)  # a preemption and a time limit send SIGTERM
        _, said = launcher.communicate(timeout=150)

    assert launcher.returncode == 0, said
    assert [record["status"] for record in records(tmp_path)] == ["ok", "ok"]
    assert said.count("attempt 2 of 3") == 2
    assert "its process exited without a status" in said
    assert "its process was asked to stop" in said


@pytest.mark.slow
def test_a_launcher_that_is_a_job_itself(
    tmp_path: Path, store: Store, script: Any, engine: SlurmEngine
) -> None:
    folder = tmp_path
    for key in "abcde":  # hold every GPU, so that the run's stages wait
        script(key, "exec sleep 60")
        engine.start([key], store.log(key))
    (folder / "mixbench.toml").write_text("[slurm]\npoll_s = 0.5\nsettle_s = 2\ngres = 'gpu:1'")

    def say(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "mixbench", *words], cwd=folder, text=True, timeout=60,
            env=os.environ | {"MIXBENCH_STORE": str(folder / "run")}, capture_output=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    number = say(*FAST, "--detach").split()[1]
    until(lambda: [*folder.glob("run/runs/*.json")], 40)

    until(lambda: "queued    train    " in say("status") and "queued (" in say("status"), 30)
    subprocess.run(["scancel", "--signal=USR1", "--batch", number], check=True)  # its time ends
    log = folder / f"run/runs/launcher-{number}.txt"

    def found_again() -> bool:
        """SLURM waits two minutes before it starts a requeued job, if it is not told to."""
        now = ["scontrol", "update", f"jobid={number}", "StartTime=now"]
        subprocess.run(now, check=False, capture_output=True)
        return log.read_text().count("adopted  train") == 2

    # SLURM starts no job again in the second in which it ended.
    until(lambda: "JobState=PENDING" in facts_of(number))
    time.sleep(2)
    until(found_again, 40)
    assert "Cancelled 4 stages" in say("cancel", "--all")
    until(lambda: "COMPLETED" in facts_of(number) or "FAILED" in facts_of(number))


def facts_of(number: str) -> str:
    """Return what SLURM says of a job."""
    command = ["scontrol", "--oneliner", "show", "job", number]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
def test_two_nodes_train_one_model(tmp_path: Path) -> None:
    setup = "setup = ['export CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=1']"
    (tmp_path / "mixbench.toml").write_text(
        f"[slurm]\npoll_s = 0.5\nsettle_s = 2\nnodes = 2\ngres = 'shard:1'\n{setup}"
    )
    environment = os.environ | {"MIXBENCH_STORE": str(tmp_path / "store")}
    command = [sys.executable, "-m", "mixbench", *FAST]
    command[command.index("none,mixup")] = "none"

    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=150,
        check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert [record["status"] for record in records(tmp_path)] == ["ok"]
    key = next(s["key"] for s in records(tmp_path)[0]["stages"] if s["kind"] == "train")
    manifest = json.loads((tmp_path / f"store/stages/{key}/manifest.json").read_text())
    assert manifest["spec"]["options"]["processes"] == 2
    assert len([line for line in started(tmp_path / "store") if " train " in line]) == 2


@pytest.mark.slow
def test_a_stage_whose_node_is_lost_starts_on_another(cluster: Path, tmp_path: Path) -> None:
    with launched(tmp_path) as launcher:
        numbers = until(lambda: queue()[1:] and queue(), 30)
        until(lambda: len(started(tmp_path / "store")) == 2, 30)
        node = nodes_of(numbers[0])
        lose(cluster, node)
        _, said = launcher.communicate(timeout=240)
    environment = os.environ | {"PATH": f"{os.environ['PATH']}:/usr/sbin"}
    subprocess.run(["slurmd", "-N", node], env=environment, check=True)  # other tests need two
    until(lambda: ready_nodes() == 2)

    assert launcher.returncode == 0, said
    assert [record["status"] for record in records(tmp_path)] == ["ok", "ok"]
    assert "attempt 2 of 3" in said


def ready_nodes() -> int:
    command = ["sinfo", "--noheader", "--Node", "--states", "idle,mixed,alloc", "--responding"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return len(listed.splitlines())


def nodes_of(number: str) -> str:
    command = ["squeue", "--noheader", "--job", number, "--format", "%N"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def having(mark: str) -> set[int]:
    """Return the processes with a mark in their environment or command line."""
    found = set()
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark.encode() in (path / "environ").read_bytes() + (path / "cmdline").read_bytes():
                found.add(int(path.name))
    return found


def lose(cluster: Path, node: str) -> None:
    """Kill a node's daemon, the steps that it watches over, and all that they run."""
    daemon = int((cluster / f"slurmd.{node}.pid").read_text())
    for pid in {daemon, *having(f"spool.{node}"), *having(f"SLURMD_NODENAME={node}")}:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
