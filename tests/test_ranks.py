"""Two processes that train one model end where one process ends."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from mixbench.storage.curves import read_curve
from mixbench.train.distributed import SINGLE_PROCESS, Distributed
from tests.support import Run, reached, until


def test_one_process_is_the_whole() -> None:
    x = torch.arange(5.0)

    assert SINGLE_PROCESS.is_main
    assert torch.equal(x[SINGLE_PROCESS.rows], x)
    assert SINGLE_PROCESS.gather(x) is x
    assert SINGLE_PROCESS.mean(x) is x
    assert SINGLE_PROCESS.broadcast_flag(True)


def test_ranks_take_turns_in_a_batch() -> None:
    x = torch.arange(6)

    rows = [x[Distributed(rank, 3).rows].tolist() for rank in range(3)]

    assert rows == [[0, 3], [1, 4], [2, 5]]


def trained(store: Path) -> tuple[dict[str, Tensor], list[dict[str, float]], Any]:
    """Return the last weights, the learning curve and the manifest of the only training."""
    (curve,) = store.glob("stages/*/curve.json")
    (weights,) = curve.parent.glob("weights/epoch-*.safetensors")
    manifest = json.loads((curve.parent / "manifest.json").read_text())
    return load_file(weights), read_curve(curve), manifest


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few generated photographs in ImageNet's layout, which are streamed from files."""
    from dataclasses import replace

    from mixbench.contract.loading import load_task
    from mixbench.registry.units import find

    folder = tmp_path_factory.mktemp("imagenet")
    make: Any = load_task(find("task", "imagenet"))
    task = make(classes=4, side=32)
    task.synthesize(folder, replace(task.synthetic, train=25, test=5))
    return folder


@pytest.mark.full
@pytest.mark.parametrize(
    "method",
    [
        pytest.param("random_patchmix", marks=pytest.mark.slow),
        "manifold_mixup",
        pytest.param("recursivemix", marks=pytest.mark.slow),  # keeps rows of its own in a buffer
    ],
)
def test_two_processes_train_what_one_trains(
    mixbench: Run, images: Path, tmp_path: Path, method: str
) -> None:
    """At the same global batch, and with batch norms, whose statistics are the whole batch's."""
    few = ["classes=4", "side=32", "epochs=2", "batch_size=20", "lr=0.02", "tail=1"]
    settings = [part for text in few for part in ("--set", f"imagenet.{text}")]
    cell = ("run", "-m", method, "-t", "imagenet", "--protocol", "quick", "--data", str(images))

    for number, workers in (("1", "0"), ("2", "1")):
        processes = ("--gpus-per-cell", number, "--workers", workers)
        done = mixbench(*cell, *settings, *processes, "--store", str(tmp_path / number))
        assert done.returncode == 0, done.stderr

    one, one_curve, one_manifest = trained(tmp_path / "1")
    two, two_curve, two_manifest = trained(tmp_path / "2")
    assert one_manifest["key"] == two_manifest["key"]
    assert one_manifest["cost"]["images"] == two_manifest["cost"]["images"] == 160
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        if name != "method.logits":  # of which each process knows its own rows
            torch.testing.assert_close(two[name], tensor, atol=1e-3, rtol=1e-2, msg=name)
    for row, other in zip(one_curve, two_curve, strict=True):
        assert other["loss"] == pytest.approx(row["loss"], abs=1e-3)
        assert other["validation_top1"] == row["validation_top1"]


@pytest.mark.full
def test_tasks_may_have_other_numbers_of_processes(mixbench: Run, tmp_path: Path) -> None:
    """A task that needs two for its models, and one that starts from the model of the other."""
    settings = tmp_path / "mixbench.toml"
    settings.write_text("[gpus_per_cell]\nimagenet = 2\n")
    few = [
        *("imagenet.classes=3", "imagenet.side=32", "imagenet.epochs=1", "imagenet.batch_size=20"),
        *("cub.classes=3", "cub.side=32", "cub.epochs=1", "cub.batch_size=20"),
    ]
    words = [word for text in few for word in ("--set", text)]
    cell = ("run", "-m", "none", "-t", "cub", "--protocol", "quick", *words)

    done = mixbench(*cell, "--settings", str(settings))
    settings.write_text("[gpus_per_cell]\nimagenot = 2\n")
    refused = mixbench(*cell, "--settings", str(settings))

    assert done.returncode == 0, done.stderr
    specs = [
        json.loads(path.read_text())["spec"]
        for path in (tmp_path / "store").glob("stages/*/manifest.json")
    ]
    processes = {
        (spec["stage"]["identity"]["task"]["name"], spec["stage"]["identity"]["kind"]): spec[
            "options"
        ]["processes"]
        for spec in specs
    }
    assert processes["imagenet", "train"] == 2
    assert processes["cub", "train"] == processes["cub", "evaluate"] == 1
    assert refused.returncode == 2
    assert "'imagenot'" in refused.stderr


@pytest.mark.slow
@pytest.mark.full
def test_two_processes_find_what_one_finds(
    mixbench: Run, fast: tuple[str, ...], tmp_path: Path
) -> None:
    """The forward passes of the search are shared; the result is the same to the bit."""
    few = ("population=12", "generations=3", "image_pairs=8", "num_pairs=4")
    settings = [part for text in few for part in ("--set", f"guided_patchmix.{text}")]
    cell = ("run", "-m", "guided_patchmix", "-t", "digits", *fast, *settings)
    assert mixbench("run", "-m", "random_patchmix", "-t", "digits", *fast).returncode == 0
    shutil.copytree(tmp_path / "store", tmp_path / "other")

    alone = mixbench(*cell)
    together = mixbench(*cell, "--gpus-per-cell", "2", "--store", str(tmp_path / "other"))

    assert alone.returncode == together.returncode == 0, together.stderr
    (one,), (two,) = ([*tmp_path.glob(f"{s}/stages/*/search.json")] for s in ("store", "other"))
    assert one.read_bytes() == two.read_bytes()
    assert json.loads(one.read_text())["forwards"] > 0
    logs = "".join(path.read_text() for path in tmp_path.glob("other/logs/*"))
    assert "prepare" in logs
    assert not list(tmp_path.glob("other/work/*/failure.json"))


def test_a_batch_that_cannot_be_shared_evenly_is_refused(mixbench: Run, images: Path) -> None:
    few = ["classes=4", "side=32", "batch_size=21"]
    settings = [part for text in few for part in ("--set", f"imagenet.{text}")]

    done = mixbench(
        *("run", "-m", "none", "-t", "imagenet", "--protocol", "quick", "--data", str(images)),
        *settings, "--gpus-per-cell", "2",
    )  # fmt: skip

    assert done.returncode == 2
    assert "must divide the batch size of imagenet, 21 (got 2)" in done.stderr


def test_more_processes_than_the_machine_has_are_refused(mixbench: Run) -> None:
    done = mixbench("run", "-m", "none", "-t", "digits", "--gpus-per-cell", "999")

    assert done.returncode == 2
    assert "--gpus-per-cell must be at most the" in done.stderr
    assert "(got 999)" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_stop_leaves_a_checkpoint_from_which_the_run_goes_on(
    images: Path, tmp_path: Path, processes: str
) -> None:
    """Also where readers and other ranks, which are told to stop as well, work for the stage."""
    few = ["classes=4", "side=32", "epochs=150", "batch_size=20", "tail=1"]
    settings = [part for text in few for part in ("--set", f"imagenet.{text}")]
    command = [
        *(sys.executable, "-m", "mixbench", "run", "-m", "none", "-t", "imagenet"),
        *("--protocol", "quick", "--data", str(images), "--store", str(tmp_path / "store")),
        *("--workers", "1", "--gpus-per-cell", processes), *settings,
    ]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    until(lambda: reached(tmp_path / "store", 1), 90)

    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]

    assert process.returncode == 130
    assert "Stopped" in said
    assert not list(tmp_path.glob("store/work/*/failure.json"))
    (checkpoint,) = tmp_path.glob("store/work/*/checkpoint-*.pt")
    step = int(checkpoint.name.split("-")[1])
    assert 0 < step < 600
    again = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    log = next(tmp_path.glob("store/logs/*"))
    until(lambda: f"resumed from the checkpoint of step {step}" in log.read_text())
    again.send_signal(signal.SIGINT)
    again.communicate(timeout=60)
