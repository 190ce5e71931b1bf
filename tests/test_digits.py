"""The digits task: its reader against scikit-learn's, its splits, its refusals."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from mixbench.contract import Task
from mixbench.contract.loading import load_task
from mixbench.datasets.locate import locate
from mixbench.errors import DataError
from mixbench.registry.units import find
from mixbench.vision.images.splits import ResidentSplit

CARD = find("task", "digits")


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task(CARD)()


@pytest.fixture(scope="module")
def folder() -> Path:
    found = locate(CARD, None).folder
    assert found is not None
    return found


def part(task: Task, name: str, folder: Path, seed: int = 0) -> ResidentSplit:
    split = task.load(name, folder, seed)  # type: ignore[arg-type]
    assert isinstance(split, ResidentSplit)
    return split


def test_the_installed_file_is_the_official_one() -> None:
    assert locate(CARD, None).origin == "official"


def test_the_reader_reads_what_scikit_learn_reads(task: Task, folder: Path) -> None:
    test = part(task, "test", folder)
    theirs = load_digits()

    np.testing.assert_array_equal(test.images.flatten(1), theirs.data[1200:])
    assert test.targets.tolist() == theirs.target[1200:].tolist()


def test_training_pixels_are_normalised(task: Task, folder: Path) -> None:
    parts = (part(task, name, folder) for name in ("train", "validation"))
    pixels = torch.cat([split.read(torch.arange(len(split)), None) for split in parts])

    assert float(pixels.mean()) == pytest.approx(0, abs=1e-3)
    assert float(pixels.std()) == pytest.approx(1, abs=1e-3)


def test_validation_is_held_out_of_train_by_class(task: Task, folder: Path) -> None:
    train, validation = part(task, "train", folder), part(task, "validation", folder)

    assert len(train) + len(validation) == 1200
    assert validation.targets.bincount().tolist() == [12] * 10
    together = torch.cat([train.images, validation.images]).flatten(1)
    assert len(together.unique(dim=0)) == len(part_all(folder).unique(dim=0))


def part_all(folder: Path) -> torch.Tensor:
    table = np.loadtxt(folder / "digits.csv.gz", delimiter=",")[:1200, :-1]
    return torch.from_numpy(table)


def test_the_test_part_does_not_depend_on_the_seed(task: Task, folder: Path) -> None:
    zero, one = (part(task, "test", folder, seed) for seed in (0, 1))

    assert len(zero) == 597
    assert torch.equal(zero.images, one.images)


def test_the_split_depends_on_the_seed(task: Task, folder: Path) -> None:
    zero, one = (part(task, "validation", folder, seed) for seed in (0, 1))

    assert not torch.equal(zero.images, one.images)


def test_augmentation_shifts_by_at_most_a_pixel(task: Task, folder: Path) -> None:
    train = part(task, "train", folder)
    index = torch.arange(200)
    shifted = train.read(index, torch.Generator().manual_seed(0))
    plain = train.read(index, None)
    padded = torch.nn.functional.pad(plain, (1,) * 4, value=-0.3063 / 0.3755)
    windows = [padded[..., r : r + 8, c : c + 8] for r in range(3) for c in range(3)]

    fits = torch.stack([(w - shifted).abs().lt(1e-5).flatten(1).all(1) for w in windows])
    assert bool(fits.any(0).all())
    assert bool(fits.any(1).all())


def test_generated_data_goes_through_the_same_reader(task: Task, tmp_path: Path) -> None:
    task.synthesize(tmp_path, task.synthetic)
    made = (tmp_path / "digits.csv.gz").read_bytes()

    train = part(task, "train", tmp_path)

    assert len(part(task, "test", tmp_path)) == 600
    assert set(train.targets.tolist()) == set(range(10))
    assert gzip.decompress(made).count(b"\n") == 1800


def test_generating_twice_gives_the_same_images(task: Task, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        task.synthesize(tmp_path / name, task.synthetic)

    one, other = (part(task, "test", tmp_path / name).images for name in ("a", "b"))
    assert torch.equal(one, other)


ROW = ",".join(["3"] * 64)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"not gzip", "gzipped CSV"),
        (gzip.compress(b"1,2,x\n"), "must be a gzipped CSV file of numbers"),
        (gzip.compress(b"1,2,3\n" * 1300), "rows of 65 numbers"),
        (gzip.compress(f"{ROW},1\n".encode() * 5), "more than 1200 rows"),
        (gzip.compress(f"{ROW},11\n".encode() * 1300), "classes in 0..9"),
        (gzip.compress(f"{ROW},nan\n".encode() * 1300), "classes in 0..9"),
        (gzip.compress(f"{ROW.replace('3', '17')},1\n".encode() * 1300), "grey values in 0..16"),
        (gzip.compress(f"{ROW},1\n".encode() * 1300)[:-20], "gzipped CSV file of numbers"),
    ],
    ids=["no gzip", "letters", "short rows", "few rows", "class", "no class", "grey", "cut"],
)
def test_a_wrong_file_is_named(task: Task, tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "digits.csv.gz"
    path.write_bytes(content)

    with pytest.raises(DataError) as caught:
        task.load("train", tmp_path, 0)

    assert str(path) in str(caught.value)
    assert complaint in str(caught.value)


def test_missing_data_says_the_two_ways_on(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"digits\.csv\.gz.*--data PATH.*--data synthetic"):
        locate(CARD, str(tmp_path))
