"""What goes wrong gets one sentence, a code, and costs nothing that was finished."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support import Run

HEAD = '''"""A method of a test.

Paper    -
Source   -
Differs  nothing known
"""
import torch
from mixbench.contract import Method, Sources


class Mine(Method):
    version = 1

'''
RAISES = HEAD + "    def mix(self, x, step):\n        raise ValueError('a bad\\nday')\n"
UNMIXED = HEAD + "    def mix(self, x, step):\n        return x, Sources.unmixed(x)\n"
NAN = (
    f"{UNMIXED}\n    def loss(self, output, sources, step):\n"
    "        return output.out.sum() * torch.nan\n"
)


def numbers(store: Path) -> Any:
    """Return the metrics of the store's only record."""
    (path,) = store.glob("records/*/*/*.json")
    return json.loads(path.read_text())["metrics"]


@pytest.fixture
def plugin(tmp_path: Path) -> Callable[[str], str]:
    def write(text: str) -> str:
        (tmp_path / "mine.py").write_text(text)
        return "./mine.py"

    return write


@pytest.mark.full
@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("run -m mixupp -t digits", "No method 'mixupp'. Did you mean 'mixup'? Known: adautomix, "),
        ("run -m none -t digit", "No task 'digit'. Did you mean 'digits'?"),
        ("run -m none -t digits --model resnet9", "No model of digits 'resnet9'."),
        ("run -m none -t digits --protocol long", "No protocol of digits 'long'."),
        ("run -m none -t cifar10 --protocol quick --model resnet33", "Did you mean 'resnet32'?"),
        (
            "run -m none -t cifar10 --protocol quick --model convnext_tinny",
            "Did you mean 'convnext_tiny'? Known: resnet8, resnet20",
        ),
        (
            "run -m none -t cifar10 --protocol quick --model inception_v3",
            "inception_v3 does not take images of 32 x 32 pixels",
        ),
        (
            "run -m random_patchmix -t cifar10 --protocol quick --model resnet18",
            "the model's last feature map, which is 1 x 1 for images of 32 x 32 pixels (got 4)",
        ),
        (
            "run -m random_patchmix -t imagenet --protocol quick --model vgg11 "
            "--set random_patchmix.grid=1 --set random_patchmix.head=tied",
            "head=tied needs a classifier of 512 features, as the model's feature map has",
        ),
        ("run -m none -t cifar10 --set cifar10.milestones=1,x", "valid integer"),
        ("run -m none -t cifar10 --set cifar10.memory_format=wide", "'channels_last' (got 'wide')"),
        ("run -m mixup -t digits --set mixup.alpa=1", "Did you mean 'alpha'?"),
        ("run -m mixup -t digits --set mixup.alpha=-1", "must be greater than 0 (got '-1')"),
        ("run -m mixup -t digits --set mixup.alpha", "must be NAME.PARAM=VALUE"),
        ("run -m none -t digits --set digits.epochs=0", "greater than or equal to 1 (got '0')"),
        ("run -m none -t digits --seed one", "must be whole numbers, as in 0,1,2 (got 'one')"),
        ("run -m none -t digits --seed 0 --seeds 2", "Give either --seeds N"),
        ("run -t digits", "Name at least one method"),
        ("run -m none", "Name at least one task"),
        ("run -m ./absent.py -t digits", "absent.py cannot be read"),
        ("run -m none -t digits --sedes 3", "Did you mean"),
        ("info mixpu", "Did you mean 'mixup'?"),
        ("report", "There is no store at"),
        ("status", "There is no store at"),
    ],
)
def test_a_wrong_command_is_one_sentence_and_code_2(
    mixbench: Run, arguments: str, complaint: str
) -> None:
    done = mixbench(*arguments.split())

    assert done.returncode == 2
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


def test_missing_data_is_one_sentence_and_code_1(mixbench: Run) -> None:
    done = mixbench("run", "-m", "none", "-t", "digits", "--data", "nowhere")

    assert done.returncode == 1
    assert "--data synthetic" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.full
def test_a_method_that_raises_fails_alone(
    mixbench: Run, fast: tuple[str, ...], plugin: Callable[[str], str], tmp_path: Path
) -> None:
    done = mixbench("run", "-m", f"{plugin(RAISES)},none", "-t", "digits", *fast)

    assert done.returncode == 1
    assert "failed: digits[epochs" not in done.stderr
    assert "ValueError: a bad day (mine.py, line 15)" in done.stderr
    assert "log: " in done.stderr
    assert " none " in done.stdout
    assert "Runs without a result: mine (file) s0 (failed)." in done.stdout
    assert mixbench("report", "-m", "mine").stderr.startswith("1 cell has no result")
    shown = mixbench("preview", "./mine.py")
    assert (shown.returncode, "Traceback" in shown.stderr) == (2, False)
    assert "mine.py, line 15: ValueError: a bad day." in " ".join(shown.stderr.split())
    (record,) = (tmp_path / "store" / "records" / "digits" / "mine").glob("*.json")
    assert '"status": "failed"' in record.read_text()
    assert "skipped   evaluate digits" in mixbench("status").stdout
    log = mixbench("logs", "mine").stdout
    assert "Traceback" in log


@pytest.mark.full
def test_a_method_whose_loss_is_nan_diverges(
    mixbench: Run, fast: tuple[str, ...], plugin: Callable[[str], str], tmp_path: Path
) -> None:
    done = mixbench("run", "-m", plugin(NAN), "-t", "digits", *fast)

    assert done.returncode == 1
    assert "diverged: digits" in done.stderr
    assert "The loss is nan at step 1 (epoch 1)." in done.stderr
    (record,) = (tmp_path / "store" / "records" / "digits" / "mine").glob("*.json")
    assert '"status": "diverged"' in record.read_text()


@pytest.mark.full
def test_a_metric_that_is_nan_on_the_test_split_fails_the_cell(
    mixbench: Run, fast: tuple[str, ...], plugin: Callable[[str], str], tmp_path: Path
) -> None:
    """The validation split has fewer images than a batch of the test split."""
    predict = (
        "    def predict(self, output):\n        return output.out / (len(output.out) < 150)\n"
    )

    done = mixbench("run", "-m", plugin(f"{UNMIXED}\n{predict}"), "-t", "digits", *fast)

    assert done.returncode == 1
    assert "is nan on the test split" in done.stderr
    (record,) = (tmp_path / "store" / "records" / "digits" / "mine").glob("*.json")
    assert '"status": "diverged"' in record.read_text()


@pytest.mark.full
def test_a_mended_method_runs_again_and_only_it(
    mixbench: Run, fast: tuple[str, ...], plugin: Callable[[str], str]
) -> None:
    command = ("run", "-m", f"{plugin(RAISES)},none", "-t", "digits", *fast)
    mixbench(*command)
    plugin(RAISES.replace("raise ValueError('a bad\\nday')", "return x, Sources.unmixed(x)"))

    done = mixbench(*command)

    assert done.returncode == 0
    assert "2 cached, 2 to run" in done.stderr
    assert "mine (file)" in done.stdout


@pytest.mark.full
@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        ("manifest.json", 30, "is damaged"),
        ("weights/best.safetensors", 1000, "is truncated or missing"),
        ("metrics.json", 40, "is truncated or missing"),
    ],
)
def test_a_truncated_artifact_is_named_and_computed_again(
    mixbench: Run, fast: tuple[str, ...], tmp_path: Path, name: str, size: int, expected: str
) -> None:
    command = ("run", "-m", "none", "-t", "digits", *fast)
    mixbench(*command)
    before = numbers(tmp_path / "store")
    path = next((tmp_path / "store" / "stages").glob(f"*/{name}"))
    os.truncate(path, size)
    if name != "metrics.json":  # the evaluation, too, must be wanted again
        for record in (tmp_path / "store" / "stages").glob("*/metrics.json"):
            os.truncate(record, 0)

    done = mixbench(*command)

    assert done.returncode == 0, done.stderr
    assert f"{path} {expected}: it is computed again" in done.stderr
    assert numbers(tmp_path / "store") == before


@pytest.mark.full
def test_a_damaged_input_found_while_reading_is_computed_again(
    mixbench: Run, fast: tuple[str, ...], tmp_path: Path
) -> None:
    """A changed byte in a large file shows only when a stage reads it."""
    command = ("run", "-m", "none", "-t", "digits", "--model", "resnet32", *fast)
    mixbench(*command)
    store = tmp_path / "store"
    before = numbers(store)
    weights = max(store.glob("stages/*/weights/*.safetensors"), key=lambda p: p.stat().st_size)
    assert weights.stat().st_size > 1 << 20
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    for metrics in store.glob("stages/*/metrics.json"):
        os.truncate(metrics, 0)

    done = mixbench(*command)

    assert done.returncode == 0, done.stderr
    assert numbers(store) == before


@pytest.mark.full
def test_a_damaged_record_is_named(mixbench: Run, fast: tuple[str, ...], tmp_path: Path) -> None:
    mixbench("run", "-m", "none", "-t", "digits", *fast)
    (path,) = (tmp_path / "store" / "records").glob("*/*/*.json")
    path.write_text(path.read_text().replace('"seed": 0', '"seed": -1'))

    done = mixbench("report")

    assert done.returncode == 1
    assert f"{path} is not a valid record: seed: " in done.stderr


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 16 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.full
def test_a_full_disk_is_one_sentence_and_loses_nothing(
    mixbench: Run, fast: tuple[str, ...], small_disk: Path
) -> None:
    store = ("--store", str(small_disk / "store"))
    first = mixbench("run", "-m", "none", "-t", "digits", *fast, *store)
    assert first.returncode == 0, first.stderr
    records = list((small_disk / "store" / "records").glob("*/*/*.json"))
    with (small_disk / "filler").open("wb", buffering=0) as filler, suppress(OSError):
        while filler.write(b"\0" * 4096):
            pass

    full = mixbench("run", "-m", "none,mixup", "-t", "digits", *fast, *store)
    (small_disk / "filler").unlink()
    again = mixbench("run", "-m", "none,mixup", "-t", "digits", *fast, *store)

    assert full.returncode == 1
    assert f"The disk of the store {small_disk / 'store'} is full" in full.stderr
    assert "Traceback" not in full.stderr
    assert all(path.exists() for path in records)
    assert again.returncode == 0, again.stderr
    assert "2 cached, 2 to run" in again.stderr
