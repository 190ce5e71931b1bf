"""Guided PatchMix as a user runs it: its phases, what they share, what it refuses."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mixbench.contract import Step
from mixbench.errors import UsageError
from mixbench.registry.units import find
from mixbench.search.strategies import Progress
from mixbench.streams import generator
from mixbench.testing import ToyTask, subject_of
from mixbench.testing.toy import CLASSES, ToySplit, toy_step
from tests.support import Run

CELL = ("-m", "guided_patchmix", "-t", "digits")
SMALL = (
    *("--set", "guided_patchmix.population=12", "--set", "guided_patchmix.generations=4"),
    *("--set", "guided_patchmix.image_pairs=8"),
)


def record_of(store: Path, method: str = "guided_patchmix") -> Any:
    (path,) = store.glob(f"records/*/{method}/*.json")
    return json.loads(path.read_text())


def result_of(store: Path) -> Any:
    (path,) = store.glob("stages/*/search.json")
    return json.loads(path.read_text())


@pytest.mark.full
def test_phase_1_is_random_patchmix_and_all_phases_are_charged(
    mixbench: Run, fast: tuple[str, ...], tmp_path: Path
) -> None:
    methods = ("-m", "guided_patchmix,random_patchmix", "-t", "digits")

    done = mixbench("run", *methods, *fast, *SMALL)

    assert done.returncode == 0, done.stderr
    assert "2 cells, 5 stages" in done.stderr
    store = tmp_path / "store"
    guided, random = record_of(store), record_of(store, "random_patchmix")
    assert [(s["kind"], s["own"]) for s in guided["stages"]] == [
        ("train", False), ("prepare", True), ("train", True), ("evaluate", True),
    ]  # fmt: skip
    assert guided["stages"][0]["key"] == random["stages"][0]["key"]
    assert guided["cost"]["images"] == 2 * random["cost"]["images"] == 2000
    assert guided["cost"]["wall_s_total"] >= sum(s["wall_s"] for s in guided["stages"][:2])
    assert {a["role"] for a in guided["artifacts"]} >= {"search", "buffers", "weights"}
    result = result_of(store)
    assert len(result["pairs"]) == 10
    assert result["forwards"] == result["distinct"] * 8
    assert len(result["history"]) == 5


@pytest.mark.full
def test_a_published_result_is_taken_and_counts_by_its_content(
    mixbench: Run, fast: tuple[str, ...], tmp_path: Path
) -> None:
    mixbench("run", *CELL, *fast, "--set", "guided_patchmix.search=random")
    store = tmp_path / "store"
    first = record_of(store)
    kept = {a["role"]: store / a["path"] for a in first["artifacts"]}
    for name in ("one.json", "two.json"):
        (tmp_path / name).write_bytes(kept["search"].read_bytes())
    fixed = ("--set", "guided_patchmix.search=fixed", "--store", str(tmp_path / "other"))

    one = mixbench("run", *CELL, *fast, *fixed, "--set", "guided_patchmix.file=one.json")
    two = mixbench("run", *CELL, *fast, *fixed, "--set", "guided_patchmix.file=two.json")

    assert one.returncode == 0, one.stderr
    assert "0 to run" in two.stderr
    texts = [p.read_text() for p in (tmp_path / "other").glob("records/*/guided_patchmix/*.json")]
    again, same = map(json.loads, texts)
    assert again["metrics"] == same["metrics"] == first["metrics"]
    assert again["artifacts"] == same["artifacts"]
    other = {a["role"]: tmp_path / "other" / a["path"] for a in again["artifacts"]}
    mine, theirs = load_file(kept["buffers"]), load_file(other["buffers"])
    assert all(torch.equal(mine[name], theirs[name]) for name in ("pairs", "masks"))


@pytest.mark.full
@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (["guided_patchmix.num_pairs=91"], "num_pairs must be at most 90, the number of ordered"),
        (["guided_patchmix.search=fixed"], "search=fixed and file=PATH require each other"),
        (["guided_patchmix.grid=6"], "must be less than or equal to 5 (got '6')"),
        (["guided_patchmix.search=fixed", "guided_patchmix.file=absent.json"], "absent.json"),
        (
            ["guided_patchmix.search=fixed", "guided_patchmix.file=other.json"],
            "is for the 2 classes",
        ),
        (["guided_patchmix.budget=1000"], "budget must be at least as large (got 1,000)"),
        (["digits.holdout=0.002"], "training and the validation split: class 0 has 119"),
        (
            ["digits.holdout=0.002", "digits.final_on=all"],
            "training and the validation split: class 0 has 119",
        ),
    ],
)
def test_what_cannot_work_is_refused_before_any_training(
    mixbench: Run, tmp_path: Path, settings: list[str], complaint: str
) -> None:
    other = {"schema": "mixbench/search@1", "classes": ["a", "b"], "grid": 4, "pairs": [
        {"first": "a", "second": "b", "mask": ["0000"] * 4}]}  # fmt: skip
    (tmp_path / "other.json").write_text(json.dumps(other))

    done = mixbench("run", *CELL, *(text for s in settings for text in ("--set", s)))

    assert done.returncode in {1, 2}
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "store").glob("work/*/progress.jsonl"))


@pytest.mark.full
def test_a_grid_finer_than_the_image_is_refused_before_any_training(mixbench: Run) -> None:
    done = mixbench("run", "-m", "random_patchmix", "-t", "digits",
                    "--set", "random_patchmix.grid=9")  # fmt: skip

    assert done.returncode == 2
    assert "images are 8 x 8 pixels (got 9)" in done.stderr


def spawn(store: Path) -> subprocess.Popen[bytes]:
    command = ("run", *CELL, "--set", "digits.epochs=1", "--set", "guided_patchmix.patience=0",
               "--set", "guided_patchmix.generations=600")  # fmt: skip
    with store.with_suffix(".said").open("ab") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "mixbench", *command, "--store", str(store)],
            stdout=said, stderr=said, env=os.environ.copy(),
        )  # fmt: skip


def searching(store: Path) -> bool:
    """Whether a search has finished some generations."""
    folders = {path.parent for path in store.glob("work/*/scratch")}
    lines = [folder / "progress.jsonl" for folder in folders]
    return any(path.exists() and path.read_text().count("\n") > 2 for path in lines)


def until(reached: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 200
    while not reached():
        assert time.monotonic() < deadline
        assert process.poll() is None, "the search was over too early"
        time.sleep(0.05)


@pytest.mark.slow
def test_a_search_stopped_in_the_middle_ends_the_same(tmp_path: Path) -> None:
    with spawn(tmp_path / "whole") as whole:
        assert whole.wait(300) == 0
    store = tmp_path / "stopped"
    with spawn(store) as first:
        until(lambda: searching(store), first)
        first.send_signal(signal.SIGINT)
        assert first.wait(60) == 130
    assert list(store.glob("work/*/scratch/scores.npz"))
    with spawn(store) as second:
        assert second.wait(300) == 0

    assert result_of(store) == result_of(tmp_path / "whole")
    assert record_of(store)["metrics"] == record_of(tmp_path / "whole")["metrics"]


def test_a_search_in_float32_counts_its_images_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, object]] = []

    def noting(scorers: dict[str, object], preparation: Any) -> Progress:
        seen.append(scorers)
        return Progress(scorers, preparation)  # type: ignore[arg-type]

    monkeypatch.setattr("mixbench.search.strategies.Progress", noting)
    small = {"population": 4, "generations": 1, "image_pairs": 2}
    assert subject_of(find("method", "guided_patchmix"), small).prepared

    assert [[*scorers] for scorers in seen] == [["search"]]


def test_a_third_of_the_samples_each_is_clean_random_and_guided() -> None:
    subject = subject_of(find("method", "guided_patchmix"), {"search": "random"})
    method, model, task = subject.bound()
    split = task.load("train", Path(), 0)
    counts = torch.zeros(3)
    for number in range(60):
        step = toy_step(split, task, model, number)
        _, sources = method.mix(step.images, step)
        guided = (sources.index >= 32).any(1)
        own = (sources.index == torch.arange(32)[:, None]).all(1)
        counts += torch.tensor([own.sum(), (~own & ~guided).sum(), guided.sum()])

    assert (counts / counts.sum()).tolist() == pytest.approx([1 / 3] * 3, abs=0.05)


def test_guided_samples_are_composed_as_found() -> None:
    subject = subject_of(find("method", "guided_patchmix"), {"search": "random"})
    method, model, task = subject.bound()
    split = task.load("train", Path(), 0)
    buffers = dict(method.named_buffers())
    found = {
        (int(i), int(j), tuple(mask.tolist()))
        for (i, j), mask in zip(buffers["pairs"], buffers["masks"], strict=True)
    }
    step = toy_step(split, task, model, 0)
    _, sources = method.mix(step.images, step)

    guided = torch.nonzero((sources.index >= 32).any(1)).flatten()
    assert len(guided) > 3
    for row in guided:
        drawn = sources.index[row].unique()
        assert any(
            set(step.targets[drawn].tolist()) <= {i, j}
            and all(
                int(step.targets[k]) == (i if own else j)
                for k, own in zip(sources.index[row], mask, strict=True)
            )
            for i, j, mask in found
        )


def test_the_sum_is_three_losses_on_three_batches() -> None:
    options = {"search": "random", "final": "sum"}
    method, model, task = subject_of(find("method", "guided_patchmix"), options).bound()
    split = task.load("train", Path(), 0)
    index = torch.arange(20)
    step = Step(split.read(index, None), split.targets[index], rng=generator(0, "mix"),
                task=task, model=model, split=split)  # fmt: skip

    mixed, sources = method.mix(step.images, step)
    output = model(mixed)

    one_hot = torch.nn.functional.one_hot(step.targets, CLASSES).float()
    soft = (one_hot[sources.index] * sources.weight[..., None]).sum(1)
    losses = -(soft * output.out.log_softmax(1)).sum(1).view(3, 20).mean(1)
    assert len(mixed) == 60
    assert torch.equal(mixed[:20], step.images[:20])
    torch.testing.assert_close(method.loss(output, sources, step), losses.sum())


@pytest.mark.full
def test_pictures_are_drawn_from_finished_cells(mixbench: Run, fast: tuple[str, ...]) -> None:
    mixbench("run", "-m", "guided_patchmix,mixup", "-t", "digits", *fast, *SMALL)

    done = mixbench("report", "--figures")

    assert done.returncode == 0, done.stderr
    drawn = {Path(line).parent.name.split("[")[0] + "/" + Path(line).name
             for line in done.stdout.splitlines()}  # fmt: skip
    names = (
        "mixup/mixes", "guided_patchmix/mixes", "guided_patchmix/evolution",
        "guided_patchmix/combinations", "guided_patchmix/mutations",
    )  # fmt: skip
    assert drawn == {f"{name}.{ending}" for name in names for ending in ("png", "pdf")}
    for line in done.stdout.splitlines():
        assert Path(line).read_bytes().startswith((b"\x89PNG", b"%PDF"))
        assert Path(line).stat().st_size > 5_000


class Unclassed(ToyTask):
    num_classes = 0


def test_a_task_without_classes_is_refused() -> None:
    method = subject_of(find("method", "guided_patchmix")).make()

    with pytest.raises(UsageError, match="searches pairs of classes, but this task has no classes"):
        method.check(Unclassed(), None)


def test_a_class_without_held_out_images_is_refused() -> None:
    method = subject_of(find("method", "guided_patchmix")).make()
    targets = torch.tensor([0, 1, 1, 3])
    held_out = ToySplit(torch.zeros(4, 3, 16, 12), targets)

    with pytest.raises(UsageError, match="held-out images, but class 2 has none"):
        method.check(ToyTask(), held_out)
