"""Packages of others: built, installed in a virtual environment of their own, and run there."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
Install = Callable[[Path], Path]


def call(*command: str | Path, cwd: Path) -> str:
    inherited = {name: v for name, v in os.environ.items() if not name.startswith("PYTEST")}
    environment = inherited | {"MIXBENCH_STORE": str(cwd / "store"), "COLUMNS": "160"}
    done = subprocess.run(
        command, cwd=cwd, env=environment, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def install(tmp_path: Path) -> Install:
    """Return what builds a package and returns the folder of programs that know it."""

    def installed(package: Path) -> Path:
        copied = tmp_path / "source" / package.name
        shutil.copytree(package, copied)  # building writes into it
        call(sys.executable, "-m", "venv", "--system-site-packages", "venv", cwd=tmp_path)
        parent = call(
            *(sys.executable, "-c", "import site; print(site.getsitepackages()[0])"), cwd=tmp_path
        ).strip()
        (own,) = (tmp_path / "venv/lib").glob("python*/site-packages")
        known = f"import site, sys; site.addsitedir({parent!r}); sys.path.append({str(ROOT)!r})\n"
        (own / "mixbench_of_the_parent.pth").write_text(known)
        options = ("--no-deps", "--no-build-isolation", "--quiet")
        build = ("-m", "pip", "wheel", *options, "--wheel-dir", "wheels", copied)
        call(sys.executable, *build, cwd=tmp_path)
        (wheel,) = (tmp_path / "wheels").iterdir()
        programs = tmp_path / "venv/bin"
        call(programs / "python", "-m", "pip", "install", *options, wheel, cwd=tmp_path)
        return programs

    return installed


@pytest.mark.slow
def test_the_example_installs_runs_and_passes_its_own_tests(
    install: Install, tmp_path: Path, fast: tuple[str, ...]
) -> None:
    package = ROOT / "examples/mixbench-ricap"
    python = install(package) / "python"
    mixbench = (python, "-m", "mixbench")

    listed = call(*mixbench, "list", "methods", cwd=tmp_path)
    checked = call(*mixbench, "check", "ricap", cwd=tmp_path)
    ran = call(*mixbench, "run", "-m", "none,ricap", "-t", "digits", *fast, cwd=tmp_path)
    tested = call(python, "-m", "pytest", "-q", tmp_path / "source/mixbench-ricap", cwd=tmp_path)

    assert "(mixbench-ricap 1.0.0)" in listed
    assert "17 ok, 1 exempt, 0 failed" in checked
    assert "ricap (mixbench-ricap 1.0.0)" in ran
    (record,) = (tmp_path / "store/records/digits/ricap").glob("*.json")
    assert json.loads(record.read_text())["method"]["distribution"] == "mixbench-ricap 1.0.0"
    assert "18 passed, 1 xfailed" in tested


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "passed"), [("method", 18), ("task", 9)])
def test_a_new_package_installs_and_passes_its_own_test(
    install: Install, tmp_path: Path, kind: str, passed: int
) -> None:
    call(sys.executable, "-m", "mixbench", "new", kind, "band_mix", "--package", cwd=tmp_path)
    python = install(tmp_path / "mixbench-band_mix") / "python"

    tested = call(python, "-m", "pytest", "-q", tmp_path / "mixbench-band_mix", cwd=tmp_path)

    assert f"{passed} passed" in tested
