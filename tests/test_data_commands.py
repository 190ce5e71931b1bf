"""``mixbench data`` as a user meets it: fetch, make, check, and run on what was made."""

import hashlib
import json
import tarfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support import Run

TASK = '''"""Two numbers, published in an archive.

Data     made up
Licence  do as you like
"""

from mixbench.contract import Task
from mixbench.declare import Archive, Data, Metric, Recipe, Synthetic


class Published(Task):
    version = 1
    data = Data(
        name="published",
        version="1",
        licence="do as you like",
        url="http://127.0.0.1/",
        files={{"inside/numbers.txt": "{file}"}},
        archives=(Archive("numbers.tar.gz", "{digest}", "{url}", {size}),),
        manual_steps="Ask nicely.",
    )
    metrics = (Metric("top1", "%", higher_is_better=True, primary=True),)
    models = ("net",)
    protocols = {{"quick": Recipe(model="net", epochs=1)}}
    synthetic = Synthetic(train=1, test=1)
'''


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Data sets of the test's own."""
    monkeypatch.setenv("MIXBENCH_DATA", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    (tmp_path / "numbers.txt").write_text("1 2\n")
    (tmp_path / "served").mkdir()
    path = tmp_path / "served" / "numbers.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(tmp_path / "numbers.txt", "inside/numbers.txt")
    return path


@pytest.fixture
def task(tmp_path: Path, archive: Path) -> Iterator[str]:
    """A task file whose archive lies on a server."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(archive.parent))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    path = tmp_path / "published.py"
    path.write_text(
        TASK.format(
            file=hashlib.sha256(b"1 2\n").hexdigest(),
            digest=hashlib.sha256(archive.read_bytes()).hexdigest(),
            url=f"http://127.0.0.1:{server.server_port}/numbers.tar.gz",
            size=archive.stat().st_size,
        )
    )
    yield str(path)
    server.shutdown()
    server.server_close()


def test_get_fetches_checks_unpacks_and_verifies(mixbench: Run, task: str, home: Path) -> None:
    done = mixbench("data", "get", task)

    assert done.returncode == 0, done.stderr
    assert (home / "published/inside/numbers.txt").read_text() == "1 2\n"
    assert "licence  do as you like" in done.stdout
    assert "manual   Ask nicely." in done.stdout
    assert "ok   inside/numbers.txt" in done.stdout
    assert "is complete" in done.stdout


def test_get_again_does_nothing_twice(mixbench: Run, task: str, home: Path, archive: Path) -> None:
    mixbench("data", "get", task)
    (home / "published/numbers.tar.gz").unlink()
    archive.unlink()

    assert mixbench("data", "get", task).returncode == 0


def test_get_takes_archives_that_were_downloaded_manually(
    mixbench: Run, task: str, home: Path, archive: Path
) -> None:
    manual_steps = archive.parent.rename(archive.parent.with_name("manual_steps"))

    done = mixbench("data", "get", task, "--from", str(manual_steps))

    assert done.returncode == 0, done.stderr
    assert (home / "published/inside/numbers.txt").exists()


def test_a_wrong_downloaded_archive_is_named(
    mixbench: Run, task: str, home: Path, archive: Path
) -> None:
    archive.write_bytes(b"other")

    done = mixbench("data", "get", task, "--from", str(archive.parent))

    assert done.returncode == 1
    assert f"{archive} is not the published numbers.tar.gz: its checksum must be" in done.stderr
    assert not (home / "published/inside").exists()


def test_what_needs_registration_says_how(mixbench: Run) -> None:
    done = mixbench("data", "get", "imagenet")

    assert done.returncode == 1
    assert "Register at image-net.org" in done.stdout
    assert "mixbench data get imagenet --from FOLDER" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_installed_is_not_fetched(mixbench: Run) -> None:
    done = mixbench("data", "get", "digits")

    assert done.returncode == 0
    assert "nothing to download" in done.stdout


MAKE = ("data", "make", "cifar10", "--classes", "3", "--train", "40", "--test", "10")


@pytest.mark.full
def test_what_is_made_is_read_verified_and_labelled(mixbench: Run, tmp_path: Path) -> None:
    made = mixbench(*MAKE, "--to", "shapes")
    verified = mixbench("data", "verify", "cifar10", "--data", "shapes")
    settings = ("--set", "cifar10.classes=3", "--set", "cifar10.epochs=1")
    run = mixbench(
        *("run", "-m", "none", "-t", "cifar10", "--protocol", "quick", "--data", "shapes"),
        *settings, "--json",
    )  # fmt: skip

    assert made.returncode == verified.returncode == run.returncode == 0, run.stderr
    assert "--set cifar10.classes=3 --data" in made.stdout
    assert "is complete: generated images." in verified.stdout
    assert "data    cifar10: synthetic in" in run.stderr
    (record,) = (tmp_path / "store").glob("records/cifar10/none/*.json")
    content = json.loads(record.read_text())
    assert content["data"]["origin"] == "synthetic"
    assert content["references"] == []
    assert content["metrics"][0]["n"] == 30


@pytest.mark.full
def test_the_seed_decides_what_is_made(mixbench: Run, tmp_path: Path) -> None:
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        mixbench(*MAKE, "--to", name, "--seed", seed)

    batch = "cifar-10-batches-py/data_batch_1"
    a, b, c = ((tmp_path / name / batch).read_bytes() for name in "abc")
    assert a == b != c


def test_nothing_is_written_over(mixbench: Run, tmp_path: Path) -> None:
    (tmp_path / "shapes").mkdir()
    (tmp_path / "shapes" / "mine").touch()

    done = mixbench(*MAKE, "--to", "shapes")

    assert done.returncode == 2
    assert "shapes must be empty" in done.stderr


def test_more_classes_than_can_be_painted_is_refused(mixbench: Run) -> None:
    done = mixbench("data", "make", "cifar100", "--classes", "1201", "--to", "shapes")

    assert done.returncode == 2
    assert "classes must be in 1..1200 for generated images (got 1201)" in done.stderr


@pytest.fixture
def tiny(mixbench: Run, tmp_path: Path) -> Path:
    few = ("--classes", "2", "--train", "10", "--test", "2")
    mixbench("data", "make", "tiny_imagenet", *few, "--to", "tiny")
    return tmp_path / "tiny"


@pytest.mark.parametrize(
    ("harm", "found"),
    [
        (Path.unlink, "3 of 4 files"),
        (lambda path: path.write_bytes(b"x"), "4 of 4 files, which differ from the generated ones"),
    ],
    ids=["missing", "other"],
)
def test_verify_finds_what_is_wrong(
    mixbench: Run, tiny: Path, harm: Callable[[Path], object], found: str
) -> None:
    harm(tiny / "tiny-imagenet-200/val/images/val_1.JPEG")

    done = mixbench("data", "verify", "tiny_imagenet", "--data", "tiny")

    assert done.returncode == 1
    assert f"FAIL tiny-imagenet-200/val/images: {found}" in done.stdout
    assert "mixbench data make tiny_imagenet" in done.stderr


def test_verify_opens_every_image_if_asked(mixbench: Run, tiny: Path) -> None:
    path = tiny / "tiny-imagenet-200/val/images/val_1.JPEG"
    path.write_bytes(b"x" * path.stat().st_size)

    plain = mixbench("data", "verify", "tiny_imagenet", "--data", "tiny")
    opened = mixbench("data", "verify", "tiny_imagenet", "--data", "tiny", "--images", "--json")

    assert plain.returncode == 0
    assert opened.returncode == 1
    (wrong,) = (found for found in json.loads(opened.stdout)["found"] if not found["ok"])
    assert wrong["text"].startswith("23 of 24 can be read.")
    assert "val_1.JPEG is not an image file" in wrong["text"]


def test_verify_of_nothing_names_what_is_missing(mixbench: Run, home: Path) -> None:
    done = mixbench("data", "verify", "cifar10")

    assert done.returncode == 1
    assert "FAIL cifar-10-batches-py/test_batch: missing" in done.stdout
    assert f"{home / 'cifar10'} is not complete: 7 wrong" in done.stderr


def test_an_unknown_data_set_names_a_close_one(mixbench: Run) -> None:
    done = mixbench("data", "get", "cifar")

    assert done.returncode == 2
    assert "No data set 'cifar'. Did you mean 'cifar10'?" in done.stderr


def test_ls_says_what_is_here(mixbench: Run) -> None:
    done = mixbench("data", "ls", "--json")

    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert rows["digits"]["here"]
    assert not rows["imagenet"]["here"]
    assert rows["cifar100"]["tasks"] == ["cifar100"]
    assert mixbench("data", "ls").stdout.count("licence:") == len(rows)


def test_missing_data_says_the_ways_on(mixbench: Run) -> None:
    done = mixbench("run", "-m", "none", "-t", "cifar10")

    assert done.returncode == 1
    for way in ("mixbench data get cifar10", "--data PATH", "--protocol quick"):
        assert way in done.stderr
