"""What is read is what is identified: listing, surveys, digests and the checks around a run."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mixbench.datasets.digests import CACHE_FROM, cached_digests, equal_files
from mixbench.datasets.listing import files_in, named_images
from mixbench.datasets.locate import content_digest, origin_of, path_state
from mixbench.datasets.survey import DataPart, files_of, state_of, survey
from mixbench.declare import Data
from mixbench.errors import DataError
from mixbench.storage.spec import SPECS
from tests.support import Run

FOLDERS = Data(
    "mine", "1", "", "", file_counts={"train": 0, "test": 0},
    parts={"train": "train", "test": "test"},
)  # fmt: skip


def write(path: Path, level: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 6), level).save(path)


def folders(root: Path) -> Path:
    """Write a data set of two classes, with one image for training and one for testing each."""
    names = ("train/a/1.png", "train/b/2.png", "test/a/3.png", "test/b/4.png")
    for number, name in enumerate(names):
        write(root / name, number)
    return root


def test_hidden_names_are_not_listed(tmp_path: Path) -> None:
    write(tmp_path / "a" / "1.png")
    write(tmp_path / "a" / "._1.png")
    write(tmp_path / ".ipynb_checkpoints" / "1.png")

    assert [file.name for file in files_in(tmp_path)] == ["a/1.png"]


def test_a_link_without_target_is_named_as_a_link(tmp_path: Path) -> None:
    (tmp_path / "1.png").symlink_to("gone.png")

    with pytest.raises(DataError, match=r"1\.png is a link to gone\.png, which does not exist"):
        list(files_in(tmp_path))


def test_pipes_are_not_listed_and_loops_are_named(tmp_path: Path) -> None:
    write(tmp_path / "a" / "1.png")
    os.mkfifo(tmp_path / "a" / "2.png")
    assert [file.name for file in files_in(tmp_path)] == ["a/1.png"]

    (tmp_path / "a" / "loop").symlink_to(tmp_path)

    with pytest.raises(DataError, match="loop is a link to a folder that contains it"):
        list(files_in(tmp_path))


def test_names_that_are_not_utf8_are_listed_and_identified(tmp_path: Path) -> None:
    root = folders(tmp_path / "data")
    before = survey(FOLDERS, root, tmp_path / "cache")
    name = os.fsdecode(b"caf\xe9.png")
    shutil.copy(root / "train/a/1.png", root / "train/a" / name)

    after = survey(FOLDERS, root, tmp_path / "cache")

    assert after.contents.train == 3
    assert after.parts["train"] != before.parts["train"]
    assert "\\udce9" in str(DataError(f"{root / 'train/a' / name} is damaged"))


def test_a_part_is_identified_by_its_own_files(tmp_path: Path) -> None:
    root = folders(tmp_path / "data")
    before = survey(FOLDERS, root, tmp_path / "cache")
    Image.new("RGB", (50, 50)).save(root / "test/a/3.png")

    after = survey(FOLDERS, root, tmp_path / "cache")

    assert after.parts["train"] == before.parts["train"]
    assert after.parts["test"] != before.parts["test"]


def test_a_part_alone_has_the_same_state_and_is_all_that_is_listed(tmp_path: Path) -> None:
    root = folders(tmp_path / "data")
    states = survey(FOLDERS, root, tmp_path / "cache").states
    parts: list[DataPart] = ["train", "test"]

    assert {part: state_of(FOLDERS, root, part, tmp_path / "cache") for part in parts} == states

    shutil.rmtree(root / "train")
    assert state_of(FOLDERS, root, "test", tmp_path / "cache") == states["test"]


def test_times_guard_and_do_not_identify(tmp_path: Path) -> None:
    root = folders(tmp_path / "data")
    before = survey(FOLDERS, root, tmp_path / "cache")
    os.utime(root / "train/a/1.png", ns=(1, 1))

    after = survey(FOLDERS, root, tmp_path / "cache")

    assert after.parts == before.parts
    assert after.states["train"] != before.states["train"]
    assert after.states["test"] == before.states["test"]


def test_a_folder_that_a_parameter_names_is_identified_as_a_whole(tmp_path: Path) -> None:
    root = folders(tmp_path / "data")
    boxes = root / "boxes.txt"
    boxes.write_text("1,2,3,4")
    digests, states = [content_digest(root)], [path_state(root)]

    boxes.write_text("1,2,3,5")  # of the same size
    digests.append(content_digest(root))
    write(root / "train/a/9.png")
    digests.append(content_digest(root))
    states.append(path_state(root))

    assert len(set(digests)) == 3
    assert len(set(states)) == 2


def test_lists_assign_the_images_of_a_shared_folder(tmp_path: Path) -> None:
    data = replace(
        FOLDERS,
        files={"train.txt": "", "test.txt": ""},
        file_counts={"images": 0},
        parts={"train.txt": "train list", "test.txt": "test list"},
    )
    for name in ("a/1.jpg", "a/2.jpg", "b/3.jpg", "unlisted.jpg"):
        write(tmp_path / "images" / name)
    (tmp_path / "train.txt").write_text("a/1\n")
    (tmp_path / "test.txt").write_bytes(b"\xef\xbb\xbfa\\2\r\nb/3.jpg\r\n")

    owners = {path.name: parts for path, parts in files_of(data, tmp_path)}

    assert owners["1.jpg"] == owners["train.txt"] == ("train",)
    assert owners["2.jpg"] == owners["3.jpg"] == ("test",)
    assert owners["unlisted.jpg"] == ("train", "test")
    assert str(survey(data, tmp_path, tmp_path / "cache").contents) == "2 folders, 4 images"


def test_what_is_read_and_skipped_is_counted(tmp_path: Path) -> None:
    root = folders(tmp_path)
    (root / "train" / "a" / "note.txt").write_text("")
    (root / "test" / "Thumbs.db").write_text("")

    contents = survey(FOLDERS, root, tmp_path / "cache").contents

    assert str(contents) == "2 folders, 2 + 2 images, 2 files skipped (.db, .txt)"


@pytest.mark.parametrize(
    ("files", "counts", "found", "expected"),
    [
        ({"a": "1" * 32}, {}, "1" * 32, "official"),
        ({"a": "1" * 32}, {}, "2" * 32, "modified"),
        ({"a": "1" * 32, "b": ""}, {}, "1" * 32, "counted"),
        ({"a": "1" * 32}, {"tree": 5}, "1" * 32, "counted"),
        ({"a": ""}, {"tree": 4}, "1" * 32, "modified"),
        ({"a": ""}, {"tree": 0}, "1" * 32, "own"),
    ],
)
def test_the_origin_says_what_is_known(
    files: dict[str, str], counts: dict[str, int], found: str, expected: str
) -> None:
    data = Data("mine", "1", "", "", files=files, file_counts=counts)

    assert origin_of(data, dict.fromkeys(files, found), {"tree": (5, "")}) == expected


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a/1.png", "b/2.png", "a/1.png"], r"each image once \(got a/1\.png twice\)"),
        (["../1.png"], "inside"),
        (["/1.png"], "inside"),
        (["a/._1.png"], "no hidden ones"),
        (["a/1.gif"], "in a format that is read"),
    ],
)
def test_a_list_names_visible_images_once(tmp_path: Path, names: list[str], said: str) -> None:
    with pytest.raises(DataError, match=said):
        named_images(tmp_path, names, tmp_path / "list.txt")


def test_equal_contents_are_found_by_content(tmp_path: Path) -> None:
    root = folders(tmp_path)
    write(root / "test/a/5.png", 1)  # equals train/b/2.png
    train, test = (sorted((root / part).rglob("*.png")) for part in ("train", "test"))

    with cached_digests(tmp_path / "cache") as digest:
        found = equal_files(train, test, digest)

    assert found == [(root / "train/b/2.png", root / "test/a/5.png")]


def test_digests_are_cached_until_the_file_changes(tmp_path: Path) -> None:
    path, cache = tmp_path / "large", tmp_path / "cache"
    path.write_bytes(b"a" * CACHE_FROM)
    os.utime(path, ns=(10**18, 10**18))
    with cached_digests(cache) as digest:
        first = digest(path)
    with path.open("r+b") as file:  # another content with the same size and time
        file.write(b"b")
    os.utime(path, ns=(10**18, 10**18))

    with cached_digests(cache) as digest:
        assert digest(path) == first
        os.utime(path, ns=(10**18, 10**18 + 1))
        assert digest(path) != first


def test_an_unusable_cache_only_costs_time(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("not a data base" * 100)
    path = tmp_path / "file"
    path.write_bytes(b"a")

    with cached_digests(tmp_path / "cache") as digest:
        assert digest(path).startswith("ca978112")


@pytest.fixture
def imagenet(mixbench: Run, tmp_path: Path) -> Path:
    """Generated data of three classes in ImageNet's layout."""
    folder = tmp_path / "imagenet"
    sizes = ("--classes", "3", "--train", "20", "--test", "5")
    assert mixbench("data", "make", "imagenet", *sizes, "--to", str(folder)).returncode == 0
    return folder


CELLS = (
    "-m", "none", "-t", "imagenet", "--protocol", "quick", "--set", "imagenet.classes=3",
    "--set", "imagenet.epochs=1", "--set", "imagenet.batch_size=16",
)  # fmt: skip


@pytest.fixture
def run(mixbench: Run, imagenet: Path, tmp_path: Path) -> Callable[..., Any]:
    """Run the cell on the data in a store."""
    store = ("--store", str(tmp_path / "store"))
    return lambda *more: mixbench("run", *CELLS, "--data", str(imagenet), *store, *more)


@pytest.mark.full
def test_structure_is_checked_before_anything_is_trained(
    run: Callable[..., Any], imagenet: Path, tmp_path: Path
) -> None:
    for path in sorted((imagenet / "val").rglob("*.JPEG")):
        path.rename(imagenet / "val" / path.name)
    for path in (imagenet / "val").iterdir():
        if path.is_dir():
            path.rmdir()

    done = run()

    assert done.returncode == 1
    assert "val must be a folder with one subfolder of images per class" in done.stderr
    assert not list((tmp_path / "store").glob("work/*"))


@pytest.mark.full
def test_a_missing_class_folder_is_found_before_training(
    run: Callable[..., Any], imagenet: Path
) -> None:
    shutil.rmtree(imagenet / "val" / "n00000002")

    done = run()

    assert done.returncode == 1
    assert "it lacks 1, such as n00000002" in done.stderr


@pytest.mark.full
def test_a_damaged_test_image_ends_the_run_and_costs_no_training(
    run: Callable[..., Any], mixbench: Run, imagenet: Path, tmp_path: Path
) -> None:
    path = next((imagenet / "val").rglob("*.JPEG"))
    whole = path.read_bytes()
    path.write_bytes(whole[:1000])

    done = run("--set", "imagenet.epochs=30")

    assert done.returncode == 1
    assert f"The image {path} is damaged" in done.stderr
    path.write_bytes(whole)
    plan = mixbench("plan", *CELLS, "--data", str(imagenet), "--store", str(tmp_path / "store"))
    assert "3 folders, 60 + 15 images" in plan.stdout


@pytest.mark.full
def test_a_mended_test_image_does_not_train_again(
    run: Callable[..., Any], mixbench: Run, imagenet: Path, tmp_path: Path
) -> None:
    assert run().returncode == 0
    path = next((imagenet / "val").rglob("*.JPEG"))
    Image.new("RGB", (64, 48)).save(path)

    plan = mixbench(
        "plan", "--stages", *CELLS, "--data", str(imagenet), "--store", str(tmp_path / "store")
    )

    assert [line.split()[:3] for line in plan.stdout.splitlines()[:2]] == [
        ["cached", "train", "imagenet[classes=3]/none/resnet8/s0"],
        ["to", "run", "evaluate"],
    ]


@pytest.mark.full
def test_data_that_changes_after_planning_is_not_published(
    run: Callable[..., Any], imagenet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mixbench.storage import store as module

    original = module.Store.write_spec

    def changed(store: module.Store, key: str, spec: Any) -> None:
        original(store, key, spec)
        for path in (imagenet / "train").rglob("*.JPEG"):
            os.utime(path)

    monkeypatch.setattr(module.Store, "write_spec", changed)

    done = run()

    assert done.returncode == 1
    assert f"Files have changed since the run was planned: the train data in {imagenet}" in (
        done.stderr
    )
    assert not list((tmp_path / "store").glob("stages/*"))
    (spec,) = [SPECS.read(path) for path in (tmp_path / "store").glob("work/*/spec.json")]
    assert spec.stage.kind == "train"
