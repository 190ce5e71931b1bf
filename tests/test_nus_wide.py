"""NUS-WIDE's three variants: what their files say, that they never meet, and what is wrong."""

import csv
import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mixbench.contract import Task
from mixbench.contract.loading import load_task
from mixbench.errors import DataError
from mixbench.leaderboard.table import leaderboards
from mixbench.records.schema import parse
from mixbench.registry.units import find

VARIANTS = ["official", "asl", "spml"]


def make_task(variant: str, **values: Any) -> Task:
    make: Any = load_task(find("task", "nus_wide"))
    task: Task = make(**{"variant": variant, "classes": 5, "side": 40, **values})
    return task


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(variant: str, tmp_path: Path) -> Path:
    return written(variant, tmp_path / "nus")


def written(variant: str, folder: Path) -> Path:
    task = make_task(variant)
    folder.mkdir()
    task.synthesize(folder, replace(task.synthetic, train=12, test=8))
    return folder


def said_by_files(variant: str, folder: Path) -> dict[str, list[int]]:
    """Return the test images and their labels, read plainly."""
    if variant == "official":
        names = (folder / "ConceptsList/Concepts81.txt").read_text().split()
        files = (folder / "ImageList/TestImagelist.txt").read_text().split()
        places = [folder / f"Groundtruth/TrainTestLabels/Labels_{n}_Test.txt" for n in names]
        columns = [np.loadtxt(place, dtype=int) for place in places]
        rows = np.stack(columns, 1).tolist()
        return {f"Flickr/{f}".replace("\\", "/"): r for f, r in zip(files, rows, strict=True)}
    if variant == "asl":
        with (folder / "nus_wid_data.csv").open() as file:
            table = list(csv.DictReader(file))
        found = {row["filepath"]: row["label"].strip("[]").replace("'", "") for row in table}
        names = sorted({name for text in found.values() for name in text.split(", ")})
        own = [row["filepath"] for row in table if row["split_name"] == "val"]
        return {f: [int(name in found[f].split(", ")) for name in names] for f in own}
    files_, labels = (np.load(folder / f"formatted_val_{k}.npy") for k in ("images", "labels"))
    return {f"Flickr/{f}": row for f, row in zip(files_, labels.astype(int).tolist(), strict=True)}


def test_targets_are_what_the_files_say(variant: str, folder: Path) -> None:
    test: Any = make_task(variant).load("test", folder, 0)

    found = {
        test.path(i).relative_to(folder).as_posix(): row
        for i, row in enumerate(test.targets.tolist())
    }
    expected = said_by_files(variant, folder)
    assert found == expected
    assert 3 < len(expected) <= 40
    assert test.read(torch.arange(2), None).shape == (2, 3, 40, 40)


def test_images_without_concepts_stay_where_the_variant_has_them(
    variant: str, folder: Path
) -> None:
    parts = [make_task(variant).load(p, folder, 0).targets for p in ("train", "validation", "test")]

    empty = sum(int((~part.any(1)).sum()) for part in parts)

    assert (empty == 0) == (variant == "asl")
    fewer = make_task(variant, classes=4).load("test", folder, 0).targets
    assert fewer.any(1).all()


def test_parts_share_no_image_and_are_of_their_lists(variant: str, folder: Path) -> None:
    task: Any = make_task(variant, holdout=0.25)
    splits = [task.load(part, folder, 0) for part in ("train", "validation", "test")]
    names = [{split.path(i).as_posix() for i in range(len(split))} for split in splits]

    assert not names[0] & names[1]
    assert all("/train/" in name for name in names[0] | names[1])
    assert all("/test/" in name for name in names[2])
    assert len(names[1]) == pytest.approx(0.25 * len(names[0] | names[1]), abs=1)


@pytest.mark.full
def test_a_record_names_its_variant_which_tables_never_mix(
    mixbench: Callable[..., Any], tmp_path: Path
) -> None:
    options = ["-m", "none", "-t", "nus_wide", "--protocol", "quick", "--init", "random"]
    few = {"epochs": 1, "classes": 5, "side": 32, "batch_size": 10, "variant": "spml"}
    options += [part for n, v in few.items() for part in ("--set", f"nus_wide.{n}={v}")]
    folder = written("spml", tmp_path / "spml")

    done = mixbench("run", *options, "--data", str(folder))
    (board,) = json.loads(mixbench("report", "--format", "json").stdout)

    assert done.returncode == 0, done.stderr
    assert "data: nus_wide_spml, 2020" in board["facts"][0]
    assert "variant=spml" in board["name"]
    (path,) = (tmp_path / "store").glob("records/nus_wide/none/*.json")
    record = parse(path.read_text(), path.name)
    unit = {**record.task.parameters, "variant": "official"}
    other = record.model_copy(update={"task": record.task.model_copy(update={"parameters": unit})})
    assert len(leaderboards([record, other])) == 2


def test_data_of_another_variant_is_refused(mixbench: Callable[..., Any], tmp_path: Path) -> None:
    folder = written("asl", tmp_path / "asl")

    done = mixbench("plan", "-m", "none", "-t", "nus_wide", "--data", str(folder))

    assert done.returncode == 1
    assert "ConceptsList/Concepts81.txt cannot be read" in done.stderr


def test_each_variant_is_a_data_set(mixbench: Callable[..., Any], tmp_path: Path) -> None:
    known = json.loads(mixbench("data", "ls", "--json").stdout)
    made = mixbench(
        *("data", "make", "nus_wide_asl", "--classes", "3", "--train", "4", "--test", "3"),
        *("--to", str(tmp_path / "made")),
    )
    verified = mixbench("data", "verify", "nus_wide_asl", "--data", str(tmp_path / "made"))

    names = {row["name"] for row in known if row["tasks"] == ["nus_wide"]}
    assert names == {"nus_wide", "nus_wide_asl", "nus_wide_spml"}
    assert made.returncode == 0, made.stderr
    assert "--set nus_wide.variant=asl" in made.stdout
    assert (tmp_path / "made/nus_wid_data.csv").exists()
    assert verified.returncode == 0, verified.stdout


@pytest.mark.parametrize("nested", [True, False])
def test_archives_are_unpacked_to_the_folders_of_their_names(
    mixbench: Callable[..., Any], tmp_path: Path, *, nested: bool
) -> None:
    made = written("official", tmp_path / "made")
    archives = tmp_path / "archives"
    archives.mkdir()
    for name in ("ConceptsList", "ImageList", "Groundtruth", "Flickr"):
        with zipfile.ZipFile(archives / f"{name}.zip", "w") as file:
            for path in sorted((made / name).rglob("*.*")):
                file.write(path, path.relative_to(made if nested else made / name))

    done = mixbench(*(
        "data",
        "get",
        "nus_wide",
        "--from",
        str(archives),
        "--to",
        str(tmp_path / "got"),
    ))

    assert done.returncode == 1  # fewer images than NUS-WIDE has, and it says so
    assert "100 of 269648 files" in done.stdout
    shutil.rmtree(archives)
    got, expected = (
        sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.suffix)
        for root in (tmp_path / "got", made)
    )
    assert [path for path in got if not path.startswith(".")] == expected


def edit(path: Path, how: Callable[[list[str]], list[str]]) -> None:
    path.write_text("\n".join(how(path.read_text().splitlines())) + "\n")


def labels(folder: Path) -> Path:
    return next((folder / "Groundtruth/TrainTestLabels").glob("*_Test.txt"))


WRONG: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "too few labels": (
        "official", lambda f: edit(labels(f), lambda lines: lines[1:]),
        r"Labels_.*_Test.txt must have a line for each of the 40 listed images \(got 39\)",
    ),
    "another label": (
        "official", lambda f: edit(labels(f), lambda lines: [*lines[:2], "2", *lines[3:]]),
        r"Labels_.*_Test.txt, line 3: must be 0 or 1 \(got '2'\)",
    ),
    "no list": (
        "official", lambda f: (f / "ImageList/TestImagelist.txt").unlink(),
        r"TestImagelist.txt must be a text file",
    ),
    "no part": (
        "asl",
        lambda f: edit(f / "nus_wid_data.csv", lambda t: [*t[:4], "a.jpg,['sky'],dev", *t[5:]]),
        r"nus_wid_data.csv, line 5: must be .* train or val \(got \"a.jpg,\['sky'\],dev\"\)",
    ),
    "code for a list": (
        "asl",
        lambda f: edit(f / "nus_wid_data.csv", lambda t: [*t, "a.jpg,__import__('os'),val"]),
        r"nus_wid_data.csv, line \d+: must be the path of an image, a list of its concepts",
    ),
    "pickled": (
        "spml",
        lambda f: np.save(f / "formatted_val_images.npy", np.array(["a", 1], dtype=object)),
        r"formatted_val_images.npy must hold a NumPy array without pickled objects",
    ),
    "no matrix": (
        "spml", lambda f: np.save(f / "formatted_val_labels.npy", np.full((40, 5), 0.5)),
        r"formatted_val_labels.npy must be a matrix of 0 and 1",
    ),
    "other lengths": (
        "spml", lambda f: np.save(f / "formatted_val_labels.npy", np.zeros((7, 5))),
        r"labels.npy must hold a row for each image \(got .* \(40,\) and float64 \(7, 5\)\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_file_is_named_with_its_place(tmp_path: Path, what: str) -> None:
    variant, harm, said = WRONG[what]
    folder = written(variant, tmp_path / "nus")
    harm(folder)

    with pytest.raises(DataError, match=said):
        make_task(variant).load("test", folder, 0)


def test_a_list_without_its_images_is_named(variant: str, folder: Path) -> None:
    test = make_task(variant).load("test", folder, 0)
    next(folder.glob("*/test/000001.jpg")).unlink()

    with pytest.raises(DataError, match=r"The image .*000001.jpg is missing"):
        test.read(torch.arange(len(test)), None)
