"""Machines as they are: without links, a home, UTF-8 or a folder of its own to work in."""

import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from mixbench import __main__ as program
from mixbench.cli import main as commands
from mixbench.engines.gpus import installed_gpus
from mixbench.storage.files import link_or_copy
from mixbench.storage.lease import Lease
from tests.support import Run

CELL = ("-m", "none", "-t", "digits", "--set", "digits.epochs=1")


def test_files_are_copied_where_there_are_no_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "a").write_text("abc")

    link_or_copy(tmp_path / "a", tmp_path / "b")

    assert (tmp_path / "b").read_text() == "abc"
    with Lease(tmp_path / "lease").held(lambda: None):
        assert (tmp_path / "lease").exists()


def test_a_file_that_is_there_is_not_replaced(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_text(name)

    with pytest.raises(FileExistsError):
        link_or_copy(tmp_path / "a", tmp_path / "b")


@pytest.mark.full
def test_a_colleague_can_read_what_a_run_has_written(mixbench: Run, tmp_path: Path) -> None:
    before = os.umask(0o002)
    try:
        assert mixbench("run", *CELL).returncode == 0
    finally:
        os.umask(before)

    files = [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert len(files) > 10
    assert all(path.stat().st_mode & stat.S_IRGRP for path in files)


@pytest.mark.full
def test_nothing_is_imported_from_the_working_folder(mixbench: Run, tmp_path: Path) -> None:
    for name in ("random", "statistics", "types", "mixbench"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported')")

    done = mixbench("run", *CELL)

    assert done.returncode == 0, done.stderr


@pytest.mark.full
@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_that_is_not_utf_8_gets_replacements(
    mixbench: Run, tmp_path: Path, encoding: str
) -> None:
    assert mixbench("run", *CELL).returncode == 0
    environment = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}

    done = subprocess.run(
        [sys.executable, "-m", "mixbench", "report", "--store", str(tmp_path / "store")],
        capture_output=True, cwd=tmp_path, env=environment, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert b"none" in done.stdout


def test_a_user_without_a_home_is_told_what_to_set(
    mixbench: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("MIXBENCH_DATA", raising=False)
    monkeypatch.setattr(Path, "home", homeless)

    done = mixbench("plan", "-m", "none", "-t", "cifar10")

    assert done.returncode == 2
    assert "set MIXBENCH_DATA to the path of a folder" in done.stderr


def test_a_store_whose_path_is_not_utf_8_is_refused(mixbench: Run, tmp_path: Path) -> None:
    done = mixbench("plan", *CELL, "--store", os.fsdecode(bytes(tmp_path) + b"/\xff"))

    assert done.returncode == 2
    assert "The path of a store must be UTF-8" in done.stderr


def test_a_store_with_spaces_and_signs_runs(mixbench: Run, tmp_path: Path) -> None:
    done = mixbench("plan", *CELL, "--store", str(tmp_path / "my store %j $x"))

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (PermissionError(13, "Permission denied", "/x"), 5, "error: /x cannot be read or written"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), 5, "error: UnicodeDecodeError"),
        (ZeroDivisionError("surprise"), 70, "ZeroDivisionError: surprise"),
        (KeyboardInterrupt(), 130, ""),
        (BrokenPipeError(), 0, ""),
    ],
    ids=["no permission", "no UTF-8", "bug", "Ctrl-C", "head"],
)
def test_every_end_has_a_code_of_its_own(
    error: BaseException, code: int, said: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(commands, "main", fail)
    monkeypatch.setattr(program, "commands", fail)
    monkeypatch.setattr(sys.stderr, "close", lambda: None)

    assert program.run_command() == code
    assert said in capsys.readouterr().err


def test_a_million_seeds_are_refused(mixbench: Run) -> None:
    done = mixbench("plan", *CELL, "--seeds", "1000000")

    assert done.returncode == 2
    assert "1000000 is not in the range" in done.stderr


@pytest.mark.full
def test_a_reader_that_has_ended_is_no_failure(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)

    done = subprocess.run(
        [sys.executable, "-m", "mixbench", "list", "methods"],
        stdout=write, stderr=subprocess.PIPE, cwd=tmp_path, check=False,
    )  # fmt: skip
    os.close(write)

    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("value", "found"),
    [("-1", []), ("none", []), ("NoDevFiles", []), ("", []), ("0,2", ["0", "2"]),
     ("1, -1, 2", ["1"]), ("GPU-8932f937,MIG-x", ["GPU-8932f937", "MIG-x"])],
)  # fmt: skip
def test_gpus_are_those_that_cuda_would_use(
    monkeypatch: pytest.MonkeyPatch, value: str, found: list[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)

    assert installed_gpus() == found


def test_doctor_names_what_is_missing(
    mixbench: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    usage = shutil.disk_usage("/")._replace(free=64 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: "/tmp/" + "x" * 100)
    (tmp_path / "random.py").touch()
    monkeypatch.chdir(tmp_path)

    done = mixbench("doctor")

    whole = re.sub(r"\n {16}", " ", done.stdout)  # long lines go on below
    said = {line.split()[1]: line for line in whole.splitlines()}
    assert done.returncode == 1
    assert said["memory"].startswith("note memory     /dev/shm has 64 MiB free")
    assert said["folder"].startswith("note folder     random in ")
    assert "too long for sockets" in said["sockets"]
    assert "no hard links" in said["links"]
    assert said["store"].startswith("FAIL store")
    assert "only 0.06 GiB free" in said["store"]
