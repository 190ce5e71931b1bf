"""Requests in files, and completion in shells."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import Run

ASKED = ("-m", "none,mixup", "-t", "digits", "--seeds", "2", "--set", "mixup.alpha=0.3")


def test_a_request_is_saved_and_read_again(mixbench: Run, tmp_path: Path) -> None:
    first = mixbench("plan", *ASKED, "--json", "--save-config", "my.toml")
    again = mixbench("plan", "--config", "my.toml", "--json")
    more = mixbench("plan", "--config", "my.toml", "--json", "--seeds", "3")

    text = (tmp_path / "my.toml").read_text()
    assert text == (
        'method = ["none,mixup"]\ntask = ["digits"]\nseeds = 2\nset = ["mixup.alpha=0.3"]\n'
    )
    assert json.loads(first.stdout) == json.loads(again.stdout)
    assert len(json.loads(more.stdout)) == len(json.loads(first.stdout)) * 3 / 2


@pytest.mark.full
def test_a_record_has_the_command_written_out(mixbench: Run, tmp_path: Path) -> None:
    lines = (
        'method = "cutmix"', 'task = ["digits"]', "max-steps = 1", 'log = ["csv"]',
    )  # fmt: skip
    (tmp_path / "my.toml").write_text("\n".join(lines))

    done = mixbench("run", "--config", "my.toml")

    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "store/records").rglob("*.json")
    assert json.loads(path.read_text())["command"] == [
        "mixbench", "run", "--method=cutmix", "--task=digits", "--max-steps=1", "--log=csv",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("methd = 3", "No option in bad.toml 'methd'. Did you mean 'method'?"),
        ("seeds = [", "--config bad.toml cannot be read"),
        ("seeds = {a = 1}", "seeds must be a text or a number (got"),
        ("model = ['resnet8']", "model must be a text or a number (got"),
        ("seeds = true", "seeds must be a text or a number (got"),
        ("limit = 3.9", "Invalid value"),
        ("method = [3, true]", "method must be a text or a number, or a list of these (got"),
        ("seeds = 'many'", "Invalid value"),
        ("fresh = true", "No option in bad.toml 'fresh'"),
    ],
)
def test_what_is_no_request_is_told_in_a_sentence(
    content: str, says: str, mixbench: Run, tmp_path: Path
) -> None:
    (tmp_path / "bad.toml").write_text(content)

    done = mixbench("run", "--config", "bad.toml")

    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.full
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("run -m none,guided_", ["none,guided_patchmix"]),
        ("run --suite paper_table4", ["paper_table4", "paper_table4_finetuning"]),
        ("run --model torchvision.resnet18", ["torchvision.resnet18"]),
    ],
)
def test_names_are_completed(words: str, expected: list[str]) -> None:
    asked = {"_MIXBENCH_COMPLETE": "bash_complete", "COMP_WORDS": f"mixbench {words}"}
    count = {"COMP_CWORD": str(len(words.split()))}

    done = subprocess.run(
        [sys.executable, "-m", "mixbench"], env=os.environ | asked | count, capture_output=True,
        text=True, check=True,
    )  # fmt: skip

    assert done.stdout.split() == [f"plain,{name}" for name in expected]


@pytest.mark.full
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_there_is_a_script_for_each_shell(mixbench: Run, shell: str) -> None:
    assert "_MIXBENCH_COMPLETE" in mixbench("completion", shell).stdout
