"""Fine-tuning starts from the same method's model of other images, and is plain unless asked."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.datasets import Food101

from mixbench.contract import Task
from mixbench.contract.loading import load_task
from mixbench.errors import DataError
from mixbench.registry.units import find
from mixbench.vision.images.decode import read_image
from tests.support import Run

TASKS = ["food101", "cub", "sun397"]
TINY = [
    *("--set", "imagenet.epochs=1", "--set", "imagenet.classes=3", "--set", "imagenet.side=32"),
    *("--set", "imagenet.batch_size=20"),
]


def planned(mixbench: Run, *arguments: str) -> list[dict[str, Any]]:
    done = mixbench("plan", "--protocol", "quick", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def kinds(rows: list[dict[str, Any]]) -> list[str]:
    return [f"{row['stage']} {row['cell'].split('/')[0]}" for row in rows]


def test_one_pre_training_serves_all_tasks(mixbench: Run) -> None:
    rows = planned(mixbench, "-m", "cutmix", "-t", ",".join(TASKS))

    (pretraining,) = (row for row in rows if row["cell"].startswith("imagenet/cutmix"))
    assert pretraining["stage"] == "train"
    assert pretraining["cells"] == 3
    assert kinds(rows).count("train imagenet") == 1


def test_methods_differ_by_their_pre_training_alone(mixbench: Run) -> None:
    rows = planned(mixbench, "-m", "none,mixup,guided_patchmix", "-t", "food101")

    tuned = [row["key"] for row in rows if row["cell"].startswith("food101/")]
    assert len(set(tuned)) == len(tuned) == 6  # training and evaluation of three methods
    assert "prepare food101" not in kinds(rows)
    assert "prepare imagenet" in kinds(rows)


def test_mixing_in_fine_tuning_starts_from_plain_pre_training(mixbench: Run) -> None:
    plain, mixed, both = (
        planned(mixbench, "-m", "mixup", "-t", "food101", "--set", f"food101.mix_in={where}")
        for where in ("pretrain", "finetune", "both")
    )
    none = planned(mixbench, "-m", "none", "-t", "food101")

    def key(rows: list[dict[str, Any]], cell: str) -> set[str]:
        return {r["key"] for r in rows if r["cell"].startswith(cell) and r["stage"] == "train"}

    assert key(mixed, "imagenet/") == key(none, "imagenet/")
    assert key(both, "imagenet/") == key(plain, "imagenet/") != key(none, "imagenet/")
    assert len({*key(plain, "food101"), *key(mixed, "food101"), *key(both, "food101")}) == 3


def test_init_takes_the_place_of_pre_training(mixbench: Run, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_text("weights")
    ways = {word: kinds(planned(mixbench, "-m", "none", "-t", "cub", "--init", word))
            for word in ("random", "timm", "timm:a1_in1k", str(path), "synthetic")}  # fmt: skip

    assert all("train imagenet" not in ways[word] for word in ways if word != "synthetic")
    assert "train imagenet" in ways["synthetic"]


def test_a_method_that_would_mix_nowhere_is_refused(mixbench: Run) -> None:
    options = ["--protocol", "quick", "-m", "none,mixup", "-t", "cub", "--init", "random"]

    refused = mixbench("plan", *options)
    allowed = mixbench("plan", *options, "--set", "cub.mix_in=finetune")

    assert refused.returncode == 2
    assert "mixup would have no effect" in refused.stderr
    assert allowed.returncode == 0


def test_init_is_for_tasks_that_start_from_weights(mixbench: Run) -> None:
    done = mixbench("plan", "-m", "none", "-t", "digits", "--init", "random")

    assert done.returncode == 2
    assert "the task digits takes no initial weights" in done.stderr


@pytest.mark.full
def test_a_run_fine_tunes_what_it_pre_trained(mixbench: Run, tmp_path: Path) -> None:
    options = ["-m", "mixup", "-t", "food101", "--protocol", "quick", *TINY]
    options += ["--set", "food101.epochs=1", "--set", "food101.classes=3"]
    options += ["--set", "food101.side=32", "--set", "food101.batch_size=20"]

    done = mixbench("run", *options)

    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "store").glob("records/food101/mixup/*.json")
    record = json.loads(path.read_text())
    assert record["method"]["name"] == "mixup"
    assert record["task"]["parameters"]["weights"] == "pretrained"
    stages = [(stage["kind"], stage["own"]) for stage in record["stages"]]
    assert ("train", False) in stages
    assert ("train", True) in stages
    assert record["cost"]["images"] == 320 + 160  # of imagenet's 3 x 108, and food101's 3 x 54


def test_without_images_to_pre_train_on_it_says_the_ways_to_go_on(
    mixbench: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIXBENCH_DATA", str(tmp_path / "nowhere"))
    loaded("cub", tmp_path)

    done = mixbench("run", "-m", "none", "-t", "cub", "--data", str(tmp_path))

    assert done.returncode == 1
    assert "cub starts from a model of imagenet, unless --init names other weights" in done.stderr
    assert "`mixbench data get imagenet`" in done.stderr


def loaded(name: str, folder: Path) -> tuple[Task, Path]:
    make: Any = load_task(find("task", name))
    task = make(classes=3, side=40, holdout=0.2)
    task.synthesize(folder, replace(task.synthetic, train=10, test=4))
    return task, folder


def paths(split: Any) -> list[Path]:
    return [split.path(item) for item in range(len(split))]


def test_food101_is_torchvisions(tmp_path: Path) -> None:
    task, folder = loaded("food101", tmp_path)
    meta = folder / "food-101/meta"
    for part in ("train", "test"):  # torchvision reads the lists from JSON
        lines = (meta / f"{part}.txt").read_text().split()
        by_class: dict[str, list[str]] = {}
        for line in lines:
            by_class.setdefault(line.split("/")[0], []).append(line)
        (meta / f"{part}.json").write_text(json.dumps(by_class))
    theirs = Food101(str(folder), split="test")

    ours = task.load("test", folder, 0)

    names = task.class_names(folder)
    expected = sorted((np.asarray(image).tobytes(), theirs.classes[c]) for image, c in theirs)
    found = sorted(
        (read_image(path).permute(1, 2, 0).contiguous().numpy().tobytes(), names[label])
        for path, label in zip(paths(ours), ours.targets.tolist(), strict=True)
    )
    assert found == expected


def test_sun397_is_its_first_partition_in_its_order(tmp_path: Path) -> None:
    task, folder = loaded("sun397", tmp_path)
    lines = (folder / "Partitions/Testing_01.txt").read_text().split()
    names = (folder / "SUN397/ClassName.txt").read_text().split()

    test = task.load("test", folder, 0)

    assert paths(test) == [folder / "SUN397" / line[1:] for line in lines]
    assert test.targets.tolist() == [names.index(line.rpartition("/")[0]) for line in lines]


@pytest.mark.parametrize(
    ("name", "path", "said"),
    [("food101", "food-101/meta/test.txt", "line 2: must be CLASS/IMAGE, where CLASS is"),
     ("sun397", "Partitions/Testing_01.txt", "line 2: must be CLASS/IMAGE, where CLASS is")],
)  # fmt: skip
@pytest.mark.parametrize("line", ["nothing", "other/123", "/o/other/sun_a.jpg"])
def test_a_line_of_another_form_is_named(
    tmp_path: Path, name: str, path: str, said: str, line: str
) -> None:
    task, folder = loaded(name, tmp_path)
    lines = (folder / path).read_text().splitlines()
    (folder / path).write_text("\n".join([lines[0], line, *lines[1:]]))

    with pytest.raises(DataError, match=said):
        task.load("test", folder, 0)


def test_testing_sees_the_centre(tmp_path: Path) -> None:
    task, folder = loaded("cub", tmp_path)
    split = task.load("test", folder, 0)

    images = split.read(torch.arange(5), None)

    assert images.shape == (5, 3, 40, 40)


@pytest.mark.full
def test_a_method_that_does_not_fit_its_pre_training_is_refused_before_it(
    mixbench: Run, tmp_path: Path
) -> None:
    options = ["-m", "random_patchmix", "-t", "cub", "--protocol", "quick", *TINY]

    done = mixbench("run", *options, "--set", "random_patchmix.grid=40")

    assert done.returncode == 2
    assert "grid must be at most the image's shorter side; images are 32 x 32" in done.stderr
    assert not list((tmp_path / "store").glob("records/**/*.json"))
