import json
from pathlib import Path

import pytest

from mixbench.errors import Damaged, MixbenchError
from mixbench.store import Store, write_json

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
    store.publish(KEY, built, {"key": KEY})


def test_a_published_stage_is_finished_and_whole(store: Store) -> None:
    assert not store.finished(KEY)

    publish(store)

    assert store.finished(KEY)
    assert store.path(KEY, "deep/file.txt").read_text() == "content"
    assert store.damage(KEY) == ""


def test_the_first_writer_wins(store: Store) -> None:
    publish(store, "first")
    publish(store, "second")

    assert store.path(KEY, "deep/file.txt").read_text() == "first"
    assert not (store.work(KEY) / "built").exists()


@pytest.mark.parametrize("content", ["conten", "contenT", None])
def test_damage_is_seen_and_named(store: Store, content: str | None) -> None:
    publish(store)
    path = store.folder(KEY) / "deep" / "file.txt"
    path.unlink() if content is None else path.write_text(content)

    assert str(path) in store.damage(KEY)
    with pytest.raises(Damaged, match=r"file\.txt is not what was written"):
        store.path(KEY, "deep/file.txt")


def test_a_damaged_stage_is_put_aside_when_it_is_read(store: Store) -> None:
    publish(store)
    (store.folder(KEY) / "deep" / "file.txt").write_text("something else")

    with pytest.raises(Damaged):
        store.path(KEY, "deep/file.txt")

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
    assert store.progress(KEY) == {}
    path = store.work(KEY) / "progress.jsonl"
    path.parent.mkdir()

    path.write_text('{"step": 1}\n{"step": 2}\n{"ste')

    assert store.progress(KEY) == {"step": 2}


def test_a_place_that_is_no_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(MixbenchError, match=r"cannot be written to .* --store"):
        Store(tmp_path / "file").open()
