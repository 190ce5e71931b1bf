"""Data sets of the Hugging Face Hub and of parquet files, as folders of images."""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image
from pyarrow.parquet import write_table

from mixbench.datasets.parquet import parquet_images
from mixbench.errors import DataError, MixbenchError, UsageError
from tests.fake_hub import COMMIT, serving

NAMES = ["bean", "pea", "lentil"]
Run = Callable[..., Any]


def picture(number: int, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (30, 20), (number * 7 % 256, number * 31 % 256, 90)).save(file, kind)
    return file.getvalue()


def table(
    number: int = 12,
    labels: Sequence[object] | None = None,
    names: Sequence[str] | None = NAMES,
    **more: Sequence[object],
) -> pa.Table:
    """A table as the library datasets writes it."""
    images = [{"bytes": picture(n), "path": None} for n in range(number)]
    label = [n % 3 for n in range(number)] if labels is None else labels
    features: dict[str, object] = {"image": {"_type": "Image"}}
    if names:
        features["label"] = {"_type": "ClassLabel", "names": [*names]}
    made = pa.table({"image": images, "label": label, **more})
    info = {"huggingface": json.dumps({"info": {"features": features}})}
    return made.replace_schema_metadata(info)


def write(folder: Path, tables: Mapping[str, pa.Table]) -> Path:
    for name, one in tables.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_table(one, folder / name, row_group_size=5)
    return folder


def tree(folder: Path) -> dict[str, int]:
    """The numbers of files in the folders of classes."""
    every = [path for path in folder.rglob("*") if path.is_file()]
    counts: dict[str, int] = {}
    for path in every:
        place = path.parent.relative_to(folder).as_posix()
        counts[place] = counts.get(place, 0) + 1
    return counts


def test_splits_and_names_of_classes_are_found(tmp_path: Path) -> None:
    parts = {"data/train-00000-of-00002.parquet": table(), "data/validation-0.parquet": table(3),
             "data/train-00001-of-00002.parquet": table()}  # fmt: skip
    source, told = write(tmp_path / "source", parts), []

    found = parquet_images(source)
    found.write(tmp_path / "made", lambda done, of: told.append((done, of)))

    each = {f"train/{name}": 8 for name in NAMES} | {f"val/{name}": 1 for name in NAMES}
    assert tree(tmp_path / "made") == each
    assert found.number == 27
    assert told[-1] == (27, 27)
    first = sorted((tmp_path / "made/train/bean").iterdir())[0]
    assert (first.name, first.read_bytes()) == ("00000000.png", picture(0))


@pytest.mark.parametrize("place", ["default/train/0000.parquet", "train.parquet", "some.parquet"])
def test_one_split_has_no_folder_of_its_own(place: str, tmp_path: Path) -> None:
    found = parquet_images(write(tmp_path / "source", {place: table()}))

    found.write(tmp_path / "made", lambda _done, _of: None)

    assert tree(tmp_path / "made") == dict.fromkeys(NAMES, 4)


def test_texts_and_numbers_are_names_of_classes(tmp_path: Path) -> None:
    texts, numbers = (["a/b", "..", " c", "d"] * 3), [5, 10, 5, 10] * 3
    for labels, expected in ((texts, {"a_b", "_", "_c", "d"}), (numbers, {"000005", "000010"})):
        source = write(tmp_path / str(len(expected)), {"x.parquet": table(12, labels, names=None)})
        parquet_images(source).write(source / "made", lambda _done, _of: None)
        assert set(tree(source / "made")) == expected


REFUSED: dict[str, tuple[Mapping[str, pa.Table], dict[str, Any], str]] = {
    "no files": ({}, {}, "must hold parquet files"),
    "secret labels": ({"test.parquet": table(3, [-1, -1, -1])}, {}, "Labels of test images"),
    "label out of range": ({"a.parquet": table(3, [0, 1, 7])}, {}, "must be in 0..2 (got 7)"),
    "no image": (
        {"a.parquet": pa.table({"image": [{"bytes": b"", "path": "x.png"}], "label": [0]})},
        {},
        "row 0: the column image must hold the bytes of an image file",
    ),
    "no picture": (
        {"a.parquet": pa.table({"image": [{"bytes": b"text", "path": None}], "label": [0]})},
        {},
        "must hold an image file of a known format",
    ),
    "two labels": (
        {"a.parquet": table(3, coarse_label=[0, 1, 0], fine_label=[0, 1, 2], names=None)},
        {},
        "several columns may hold the labels: name one with --label-column (label, fine_label)",
    ),
    "no images": ({"a.parquet": pa.table({"text": ["a"], "label": [0]})}, {}, "no column holds"),
    "wrong column": ({"a.parquet": table(3)}, {"label": "klass"}, "must be a column of labels"),
    "wrong split": ({"train.parquet": table(3)}, {"splits": ["test"]}, "There is no split test"),
    "one folder": (
        {"a.parquet": table(3, ["a/b", "a_b", "c"], names=None)},
        {},
        "The classes 'a/b' and 'a_b' have the same folder, a_b",
    ),
    "unknown splits": (
        {"train.parquet": table(3), "extra.parquet": table(3)},
        {},
        "extra.parquet is of an unknown split, and 1 in all: choose splits with --splits, of train",
    ),
    "no labels in the test": (
        {"train.parquet": table(3), "test.parquet": table(3).drop_columns("label")},
        {},
        "test.parquet must have the column label, as ",
    ),
    "subsets": (
        {"one/train/0.parquet": table(3), "two/train/0.parquet": table(3)},
        {},
        "has several subsets: choose one with --subset: one, two",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_data_set_of_images_is_told_in_a_sentence(case: str, tmp_path: Path) -> None:
    tables, options, says = REFUSED[case]
    (tmp_path / "source").mkdir()
    source = write(tmp_path / "source", tables)

    def imported() -> None:
        parquet_images(source, **options).write(tmp_path / "made", lambda _done, _of: None)

    with pytest.raises((DataError, UsageError)) as caught:
        imported()

    assert says in str(caught.value)


def test_classes_named_as_splits_or_hidden_files_are_kept(tmp_path: Path) -> None:
    labels = ["train", ".net", "x" * 300] * 4
    source = write(tmp_path / "source", {"a.parquet": table(12, labels, names=None)})

    parquet_images(source).write(tmp_path / "made", lambda _done, _of: None)

    assert tree(tmp_path / "made") == {"train_": 4, "_net": 4, "x" * 100: 4}


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    source = write(tmp_path / "source", {"a.parquet": table()})
    raw = bytearray((source / "a.parquet").read_bytes())
    raw[200:260] = bytes(60)
    (source / "a.parquet").write_bytes(raw)

    with pytest.raises(DataError, match=r"a\.parquet(, row \d+)?"):
        parquet_images(source).write(tmp_path / "made", lambda _done, _of: None)


def test_no_parquet_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 is not enough")

    with pytest.raises(MixbenchError, match=r"a\.parquet must be a parquet file"):
        parquet_images(tmp_path)


def test_an_imported_folder_is_a_task(mixbench: Run, tmp_path: Path) -> None:
    write(tmp_path / "source", {"train.parquet": table(30), "test.parquet": table(9)})

    done = mixbench("data", "import", "source", "--to", "beans")
    again = mixbench("data", "import", "source", "--to", "beans")
    planned = mixbench("plan", "-m", "none", "-t", "./beans", "--init", "random")

    assert done.returncode == 0, done.stderr
    assert "39 images" in done.stdout
    assert "mixbench run -m none -t" in done.stdout
    assert again.returncode == 2
    assert "must be empty" in again.stderr
    assert planned.returncode == 0, planned.stderr
    assert "own, 3 folders, 30 + 9 images" in planned.stdout + planned.stderr


@pytest.mark.full
def test_a_data_set_of_the_hub_is_imported(
    mixbench_process: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "hub/org/beans"
    write(place, {"data/train-0.parquet": table(), "data/test-0.parquet": table(3)})
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))

    with serving(tmp_path / "hub") as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        done = mixbench_process("data", "import", "org/beans", "--to", "beans")
        absent = mixbench_process("data", "import", "org/peas", "--to", "peas")

    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "beans")["train/pea"] == 4
    assert any(COMMIT in str(path) for path in (tmp_path / "home").rglob("*.parquet"))
    assert absent.returncode == DataError.exit_code
    assert "The data set org/peas cannot be had from the Hugging Face Hub" in absent.stderr
    assert not (tmp_path / "peas").exists()
