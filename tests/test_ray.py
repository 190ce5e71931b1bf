"""Stages as tasks of a real Ray cluster of two nodes on this machine."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mixbench.engines import engine as engines
from mixbench.engines.engine import Ended
from mixbench.engines.ray_cluster import RayEngine
from mixbench.engines.ray_join import KEEP_ALIVE
from mixbench.engines.settings import RaySettings
from mixbench.storage.store import Store
from tests.support import Run, made_spec, until

NODES = Path(__file__).parent / "clusters/ray_nodes.py"
# A cluster that only those enter who know the word, and that notices quickly who is gone.
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": "a" * 32,
    **KEEP_ALIVE,
}
PATIENCE_S = 60
pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None, reason="Ray is not installed: mixbench[ray]"
    ),
    pytest.mark.filterwarnings("ignore"),  # Ray's own
]
# Inside this process, where nothing could end a Ray that waits for ever.
inside = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster() -> Iterator[subprocess.Popen[str]]:
    """Two nodes, each with a make-believe GPU."""
    with subprocess.Popen(
        [sys.executable, str(NODES)], env=os.environ | QUIET, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture(scope="module")
def address(cluster: subprocess.Popen[str]) -> str:
    assert cluster.stdout is not None
    late = threading.Timer(PATIENCE_S, cluster.kill)
    late.start()
    found = (line.split()[1] for line in cluster.stdout if line.startswith("address "))
    address = next(found, "")
    late.cancel()
    if not address:
        pytest.skip(f"Ray does not start here within {PATIENCE_S} s")
    return address


@pytest.fixture(autouse=True)
def _told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    store.open()
    for key in "abcdefgh":
        store.write_spec(key, made_spec())
    return store


@pytest.fixture
def engine(store: Store, address: str) -> Iterator[RayEngine]:
    engine = RayEngine(store, RaySettings(address=address, jobs_per_gpu=2))
    yield engine
    engine.stop()


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Run some shell instead of a stage."""

    def use(text: str) -> None:
        monkeypatch.setattr(engines, "stage_command", lambda *_: ["bash", "-c", text])

    return use


def is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


@inside
def test_stages_share_gpus_and_say_how_they_ended(
    engine: RayEngine, store: Store, script: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIXBENCH_TOLD", "by the launcher")
    assert (engine.num_slots, engine.gpus) == (4, 0.5)
    script("echo GPU $CUDA_VISIBLE_DEVICES $MIXBENCH_TOLD; exit 7")
    engine.start(["a"], store.log("a"))
    assert until(engine.ended) == [Ended("a", 7)]
    assert store.log("a").read_text() == "GPU 0 by the launcher\n"

    script("kill -KILL $$")
    engine.start(["b"], store.log("b"))
    assert until(engine.ended) == [Ended("b", -signal.SIGKILL)]


@inside
def test_no_more_start_than_there_is_room_for(engine: RayEngine, store: Store, script: Any) -> None:
    script("sleep 30")
    for key in "abcd":
        assert engine.free
        engine.start([key], store.log(key))

    assert not engine.free


@inside
def test_a_cancelled_stage_says_so_and_is_gone(
    engine: RayEngine, store: Store, script: Any, tmp_path: Path
) -> None:
    path = tmp_path / "pid"
    script(f"echo $$ > {path}; exec python3 -c 'import time; time.sleep(60)'")
    engine.start(["a"], store.log("a"))
    until(lambda: path.exists() and path.read_text())

    engine.cancel("a")

    assert [end.how for end in until(engine.ended)] == ["cancelled"]
    pid = int(path.read_text())
    until(lambda: not Path(f"/proc/{pid}").exists() or is_zombie(pid))


@inside
@pytest.mark.parametrize("ended_by", ["cancel", "stop"])
def test_a_stage_that_is_told_to_end_can_write_a_checkpoint(
    store: Store, address: str, script: Any, tmp_path: Path, ended_by: str
) -> None:
    engine = RayEngine(store, RaySettings(address=address))
    begun, left = tmp_path / "begun", tmp_path / "left"
    script(f"trap 'sleep 1; touch {left}; exit 0' TERM; touch {begun}; while :; do sleep 0.1; done")
    engine.start(["a"], store.log("a"))
    until(begun.exists)

    if ended_by == "cancel":
        engine.cancel("a")
        assert [end.how for end in until(engine.ended)] == ["cancelled"]
    engine.stop()

    assert left.exists()


@inside
def test_a_stage_that_takes_too_long_is_ended(store: Store, address: str, script: Any) -> None:
    engine = RayEngine(store, RaySettings(address=address), timeout_s=1)
    script("sleep 60")
    engine.start(["a"], store.log("a"))

    found = until(engine.ended)
    engine.stop()

    assert [end.how for end in found] == ["timeout"]


@pytest.mark.parametrize(
    ("changes", "options", "said"),
    [("", ["--gpus-per-cell", "4"], "at most the 2 GPUs of the Ray cluster (got 4)"),
     ("127.0.0.1:9", [], "cannot connect to the cluster at '127.0.0.1:9'"),
     ("nodes", [], "ray.nodes must be at most the 2 nodes of the cluster")],
)  # fmt: skip
def test_a_cluster_that_cannot_serve_is_one_sentence(
    mixbench: Run, tmp_path: Path, address: str, changes: str, options: list[str], said: str
) -> None:
    where = changes if ":" in changes else address
    (tmp_path / "mixbench.toml").write_text(
        f"[ray]\naddress = '{where}'\nnodes = {4 if changes == 'nodes' else 1}"
    )

    done = mixbench("run", "-m", "none", "-t", "digits", "--engine", "ray", *options)

    assert done.returncode == 2
    assert said in done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_two_nodes_train_one_model(mixbench: Run, tmp_path: Path, address: str) -> None:
    (tmp_path / "mixbench.toml").write_text(
        f"engine = 'ray'\n[ray]\naddress = '{address}'\nnodes = 2"
    )

    done = mixbench("run", "-m", "none", "-t", "digits", "--set", "digits.epochs=4")

    assert done.returncode == 0, done.stderr
    (path,) = Path(os.environ.get("MIXBENCH_STORE", tmp_path / "store")).glob("records/*/*/*.json")
    key = next(s["key"] for s in json.loads(path.read_text())["stages"] if s["kind"] == "train")
    manifest = json.loads((path.parents[3] / f"stages/{key}/manifest.json").read_text())
    assert manifest["spec"]["options"]["processes"] == 2


@inside
def test_a_gang_ends_with_its_first_loss(store: Store, address: str, script: Any) -> None:
    engine = RayEngine(store, RaySettings(address=address, nodes=2))
    store.write_spec("a", made_spec())
    script("echo $RANK of $WORLD_SIZE at $MASTER_ADDR; [ $RANK = 1 ] && exit 7; sleep 60")
    begin = time.monotonic()
    engine.start(["a"], store.log("a"))

    found = until(engine.ended)
    engine.stop()

    assert found == [Ended("a", 7)]
    assert time.monotonic() - begin < 30
    assert {line.split()[0] for line in store.log("a").read_text().splitlines()} >= {"1"}


def change_second_node(cluster: subprocess.Popen[str]) -> None:
    """Kill the second node of the cluster, or add one after that."""
    assert cluster.stdin is not None
    assert cluster.stdout is not None
    cluster.stdin.write("\n")
    cluster.stdin.flush()
    assert cluster.stdout.readline() == "done\n"


@pytest.mark.slow
def test_a_killed_job_and_a_killed_node_lose_nothing(
    tmp_path: Path, cluster: subprocess.Popen[str], address: str
) -> None:
    (tmp_path / "mixbench.toml").write_text(
        f"engine = 'ray'\n[ray]\naddress = '{address}'\njobs_per_gpu = 1"
    )
    store = tmp_path / "store"
    command = [sys.executable, "-m", "mixbench", "run", "-m", "none,mixup", "-t", "digits"]
    with subprocess.Popen(
        [*command, "--set", "digits.epochs=12"], cwd=tmp_path, stderr=subprocess.PIPE, text=True,
        env=os.environ | QUIET | {"MIXBENCH_STORE": str(store)}, stdout=subprocess.DEVNULL,
    ) as launcher:  # fmt: skip
        until(lambda: len([*store.glob("work/*/progress.jsonl")]) == 2, 60)
        change_second_node(cluster)
        _, said = launcher.communicate(timeout=200)
    change_second_node(cluster)  # other tests need two

    assert launcher.returncode == 0, said
    records = [json.loads(path.read_text()) for path in store.glob("records/*/*/*.json")]
    assert [record["status"] for record in records] == ["ok", "ok"]
    assert "attempt 2 of 3" in said
