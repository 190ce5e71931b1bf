"""Runs that are killed, whose files decay, whose stores are copied: the same bits at the end."""

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from signal import SIGKILL
from typing import Any

import numpy as np
import pytest

from tests.support import stage_processes
from tests.test_slurm import cluster as slurm_cluster  # noqa: F401  # a fixture

pytestmark = pytest.mark.slow

CELLS = ["-m", "none,mixup", "-t", "digits", "--set", "digits.epochs=60"]
RUN = ["run", *CELLS, "--checkpoint-every", "5"]
KILLS = {"local": 60, "slurm": 20, "ray": 20}
LONGEST_S = {"local": 5.0, "slurm": 20.0, "ray": 20.0}  # between two kills


QUICK = """
[slurm]
poll_s = 0.5
settle_s = 2
gres = 'shard:1'
setup = ['export OMP_NUM_THREADS=1']
"""


@pytest.fixture(params=list(KILLS))
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """An engine, with a cluster for it on this machine."""
    name: str = request.param
    if name == "slurm":
        if not shutil.which("sbatch"):
            pytest.skip("SLURM is not installed: tests/clusters/install_slurm.sh")
        folder: Path = request.getfixturevalue("slurm_cluster")
        monkeypatch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
    if name == "ray":
        pytest.importorskip("ray", reason="Ray is not installed: mixbench[ray]")
    return name


def numbers_of(store: Path) -> dict[str, Any]:
    """Return all that a run measured, and the digests of what it predicted and learned."""
    found = {}
    for path in store.glob("records/*/*/*.json"):
        record = json.loads(path.read_text())
        digests = {a["path"]: a["sha256"] for a in record["artifacts"] if a["role"] != "curve"}
        found[record["cell"]] = (record["status"], record["metrics"], digests)
    return found


def said(folder: Path, store: str, *words: str) -> str:
    """Run a command on a store to its end, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "mixbench", *words, "--store", str(folder / store)],
        cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        timeout=900,
    )  # fmt: skip
    return f"{done.stdout}\nexit code {done.returncode}"


def flip(store: Path, chance: np.random.Generator) -> Path | None:
    """Change one byte of a random file of a finished stage; return its path, if there is one."""
    files = [p for p in sorted(store.glob("stages/*/**/*")) if p.is_file() and p.stat().st_size]
    if not files:
        return None
    path = files[chance.integers(len(files))]
    content = bytearray(path.read_bytes())
    content[chance.integers(len(content))] ^= 1 << chance.integers(8)
    path.write_bytes(content)
    return path


def killed(pid: int) -> bool:
    """Kill a process; tell whether there was one."""
    with suppress(ProcessLookupError):
        os.kill(pid, SIGKILL)
        return True
    return False


def disturb(
    launcher: subprocess.Popen[bytes], store: Path, kills: int, most: int, longest_s: float
) -> int:
    """Kill processes of a run, change its files and copy its store, until it ends.

    Returns
    -------
    kills
        Number of kills so far, at most `most`.
    """
    chance = np.random.default_rng(kills)
    while launcher.poll() is None and kills < most:
        time.sleep(float(chance.uniform(0.2, longest_s)))
        kills += killed(int(chance.choice([launcher.pid, *stage_processes(store)])))
        copy = store.with_name(f"copy{kills}")
        if kills % 10 == 5 and not copy.exists():
            with suppress(shutil.Error):  # files that are gone meanwhile
                shutil.copytree(store, copy)
        if kills % 4 == 3:
            flip(store, chance)
    return kills


def test_kills_decay_and_copies_change_nothing(engine: str, tmp_path: Path) -> None:
    assert said(tmp_path, "calm", *RUN).endswith("exit code 0")
    (tmp_path / "mixbench.toml").write_text(f"engine = '{engine}'\n{QUICK}\n")
    calm, store = numbers_of(tmp_path / "calm"), tmp_path / "disturbed"
    command, kills = [sys.executable, "-m", "mixbench", *RUN, "--store", str(store)], 0
    while kills < KILLS[engine]:
        with (tmp_path / "said.txt").open("ab") as output:
            launcher = subprocess.Popen(command, cwd=tmp_path, stdout=output, stderr=output)
            kills = disturb(launcher, store, kills, KILLS[engine], LONGEST_S[engine])
            launcher.kill()
        if launcher.wait() == 0:  # it came through: again
            assert numbers_of(store) == calm
            shutil.rmtree(store)

    copies = [path.name for path in tmp_path.glob("copy*")]
    assert copies
    for name in ("disturbed", *copies):
        told = said(tmp_path, name, *RUN)
        assert told.endswith("exit code 0"), told
        assert numbers_of(tmp_path / name) == calm
        half_written = [*(tmp_path / name).glob("stages/*/**/.*")]
        assert half_written == []
    assert stage_processes(store) == []


def test_each_flipped_byte_is_named(tmp_path: Path) -> None:
    """In each file of a finished run, one after the other."""
    chance = np.random.default_rng(0)
    assert said(tmp_path, "store", *RUN).endswith("exit code 0")
    calm = numbers_of(tmp_path / "store")
    files = [path for path in sorted(tmp_path.glob("store/stages/*/**/*")) if path.is_file()]
    kinds = {path.name.split(".")[0].rstrip("0123456789") + path.suffix: path for path in files}
    for path in kinds.values():
        before = path.read_bytes()
        content = bytearray(before)
        content[chance.integers(len(content))] ^= 1 << chance.integers(8)
        path.write_bytes(content)

        told = said(tmp_path, "store", "cache", "gc", "--verify", "--dry-run")

        assert str(path.with_name("manifest.json") if "manifest" in path.name else path) in told
        path.write_bytes(before)
    assert said(tmp_path, "store", *RUN).endswith("exit code 0")
    assert numbers_of(tmp_path / "store") == calm
