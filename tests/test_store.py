import errno
import json
from pathlib import Path

import pytest
from safetensors import SafetensorError

import mixbench.__main__ as entry
from mixbench.errors import Damaged, DamagedStage, MixbenchError, StoreFull, naming_full_disk
from mixbench.records.stage_metrics import METRICS, ScoreFacts, StageMetrics
from mixbench.storage.curves import read_curve, rounded, write_curve
from mixbench.storage.files import write_json
from mixbench.storage.notes import Progress
from mixbench.storage.store import Store
from mixbench.train.checkpoints import DiskJournal
from tests.support import Run, made_manifest, made_stage

KEY = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    store.open()
    return store


def publish(store: Store, text: str = "content") -> None:
    built = store.work(KEY) / "built"
    (built / "deep").mkdir(parents=True)
    (built / "deep" / "file.txt").write_text(text)
    store.publish(built, made_manifest(made_stage(), key=KEY))


def test_a_published_stage_is_finished_and_whole(store: Store) -> None:
    assert not store.finished(KEY)

    publish(store)

    assert store.finished(KEY)
    assert store.checked(KEY, "deep/file.txt").read_text() == "content"
    assert store.damage(KEY) == ""


def test_the_first_writer_wins(store: Store) -> None:
    publish(store, "first")
    publish(store, "second")

    assert store.checked(KEY, "deep/file.txt").read_text() == "first"
    assert not (store.work(KEY) / "built").exists()


@pytest.mark.parametrize("content", ["conten", "contenT", None])
def test_damage_is_seen_and_named(store: Store, content: str | None) -> None:
    publish(store)
    path = store.folder(KEY) / "deep" / "file.txt"
    path.unlink() if content is None else path.write_text(content)

    assert str(path) in store.damage(KEY)
    with pytest.raises(Damaged, match=r"file\.txt is corrupt or missing"):
        store.checked(KEY, "deep/file.txt")


def test_a_damaged_stage_can_be_put_aside(store: Store) -> None:
    publish(store)
    (store.folder(KEY) / "deep" / "file.txt").write_text("something else")

    with pytest.raises(DamagedStage) as caught:
        store.checked(KEY, "deep/file.txt")
    assert store.finished(KEY)  # reading moves nothing
    store.quarantine(caught.value.key)

    assert not store.finished(KEY)
    assert len(list((store.root / "damaged").iterdir())) == 1


def test_a_half_written_manifest_is_damage(store: Store) -> None:
    publish(store)
    manifest = store.folder(KEY) / "manifest.json"
    manifest.write_text(manifest.read_text()[:20])

    assert store.damage(KEY).endswith("manifest.json is damaged")


def test_json_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.json"
    write_json(path, {"a": 1})

    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("nan")})

    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in path.parent.iterdir()] == ["file.json"]


def test_a_lease_that_is_held_means_running(store: Store) -> None:
    assert not store.running(KEY)

    with store.lease(KEY).held(lambda: None):
        assert store.running(KEY)

    assert not store.running(KEY)


def test_progress_is_the_last_whole_line(store: Store) -> None:
    assert store.progress(KEY) is None
    path = store.work(KEY) / "progress.jsonl"
    path.parent.mkdir()

    path.write_text('{"step": 1, "of": 9}\n{"step": 2, "of": 9}\n{"ste')

    assert store.progress(KEY) == Progress(2, 9)


def test_a_place_that_is_no_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(MixbenchError, match=r"cannot be written to .* --store"):
        Store(tmp_path / "file").open()


def test_a_number_that_json_cannot_hold_is_not_written(tmp_path: Path) -> None:
    """A reader would refuse the null that took its place."""
    path = tmp_path / "metrics.json"
    content = StageMetrics(1, (), (), None, {"last": {"top1": ScoreFacts(float("nan"))}})

    with pytest.raises(ValueError, match="not JSON compliant"):
        METRICS.write(path, content)

    assert not path.exists()


def test_a_manifest_of_another_version_hides_no_other(store: Store) -> None:
    publish(store)
    strange = store.folder("f" * 32)
    strange.mkdir()
    (strange / "manifest.json").write_text('{"spec": {}}')

    assert [manifest.key for manifest in store.manifests()] == [KEY]


def test_a_command_leaves_the_corrupt_stage_that_it_finds_in_its_place(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(store)
    (store.folder(KEY) / "deep" / "file.txt").unlink()
    monkeypatch.setattr(entry, "commands", lambda **_: store.checked(KEY, "deep/file.txt"))

    with pytest.raises(SystemExit) as ended:
        entry.main()

    assert ended.value.code == 1
    assert "Put its stage aside with `mixbench cache gc --verify`" in capsys.readouterr().err
    assert store.finished(KEY)


def test_a_folder_without_its_manifest_is_put_aside(store: Store) -> None:
    """As a copy leaves it that was cut short."""
    publish(store)
    (store.folder(KEY) / "manifest.json").unlink()
    assert not store.finished(KEY)

    publish(store, "again")

    assert store.checked(KEY, "deep/file.txt").read_text() == "again"
    (aside,) = (store.root / "damaged").iterdir()
    assert (aside / "deep/file.txt").read_text() == "content"


def test_what_a_killed_attempt_left_is_cleared_and_not_published(tmp_path: Path) -> None:
    work = tmp_path / "work"
    (work / "kept").mkdir(parents=True)
    for name in ("kept/.epoch-3.safetensors.0a1b2c3d", ".checkpoint-4.pt.0a1b2c3d"):
        (work / name).write_bytes(b"half")

    DiskJournal(work, 10, lambda _text: None).restore()

    assert not list(work.rglob(".*"))


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (SafetensorError("Error while serializing: I/O error: ... (os error 28)"), True),
        (RuntimeError("unable to write to </torch_1>: No space left on device (28)"), False),
        (OSError(errno.EACCES, "Permission denied"), False),
        (ValueError("something else"), False),
    ],
)
def test_a_full_disk_is_a_full_disk_in_every_librarys_words(
    tmp_path: Path, error: Exception, full: bool
) -> None:
    with pytest.raises(StoreFull if full else type(error)), naming_full_disk(tmp_path):
        raise error


@pytest.mark.full
def test_what_cannot_be_read_is_named_and_the_rest_is_answered(
    mixbench: Run, tmp_path: Path
) -> None:
    assert mixbench("run", "-m", "none", "-t", "digits", "--set", "digits.epochs=1").returncode == 0
    store = tmp_path / "store"
    (path,) = store.glob("records/*/*/*.json")
    for name, text in (
        ("cut", path.read_text()[:900]),
        ("newer", path.read_text().replace("record@2", "record@3")),
    ):
        path.with_name(f"{name}.json").write_text(text)
    path.with_name("folder.json").mkdir()
    (store / "records/loop").symlink_to("..")
    (store / "runs/99999999T000000Z-x.json").write_text("{}")

    done = {command: mixbench(*command.split()) for command in ("report", "status", "cache gc")}

    assert [one.returncode for one in done.values()] == [1, 1, 1]
    assert "none" in done["report"].stdout
    assert "cut.json is not a valid record" in done["report"].stderr
    assert "newer.json was written by a newer mixbench (record@3)" in done["report"].stderr
    assert done["report"].stderr.count("skipped: ") == 2
    assert "finished" in done["status"].stdout
    assert "Nothing is removed" in done["cache gc"].stdout
    assert all("Traceback" not in one.stderr for one in done.values())
    assert list(store.glob("stages/*/manifest.json"))


def test_a_learning_curve_is_stored_by_columns(tmp_path: Path) -> None:
    rows = [
        {"epoch": 1, "loss": 2.250648260116577},
        {"epoch": 2, "loss": 0.0001, "train_accuracy": 97.5},
    ]

    write_curve(tmp_path / "curve.json", rows)

    assert read_curve(tmp_path / "curve.json") == [rounded(row) for row in rows]
    assert rounded(rows[0]) == {"epoch": 1, "loss": 2.250648}
    write_json(tmp_path / "rows.json", rows)  # as earlier versions wrote it
    assert read_curve(tmp_path / "rows.json") == rows


@pytest.mark.parametrize(
    "text",
    ['{"epoch": [1, 2], "loss": [0.5]}', '{"epoch": [1, null]}', '{"epoch": 1}', '{"loss": ["a"]}'],
)
def test_what_is_no_learning_curve_is_damaged(tmp_path: Path, text: str) -> None:
    (tmp_path / "curve.json").write_text(text)

    with pytest.raises(Damaged, match="no learning curve"):
        read_curve(tmp_path / "curve.json")
