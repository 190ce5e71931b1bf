"""One holder at a time, whatever happens to machines, processes and clocks."""

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mixbench.storage import lease as leases
from mixbench.storage.lease import Held, Lease


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("BEAT_S", 0.05), ("DEAD_S", 0.4), ("LOOK_S", 0.01)):
        monkeypatch.setattr(leases, name, seconds)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "key.lease"


def never() -> None:
    raise AssertionError("the lease was lost")


def elsewhere(path: Path, **changes: Any) -> None:
    """Write the lease of a process on another machine."""
    path.write_text(json.dumps({"owner": "other", "beat": 1} | changes))


def took_s(path: Path) -> float:
    """Return how long it takes to get the lease."""
    start = time.monotonic()
    with Lease(path).held(never):
        return time.monotonic() - start


def test_a_free_lease_is_taken_at_once_and_given_back(path: Path) -> None:
    with Lease(path).held(never):
        assert Lease(path).fresh()

    assert not path.exists()
    assert not Lease(path).fresh()


def test_two_never_hold_it_together(path: Path) -> None:
    inside, most = [0], [0]

    def work() -> None:
        with Lease(path).held(never):
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0.02)
            inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert most == [1]


def test_a_beating_heart_elsewhere_is_waited_for(path: Path) -> None:
    elsewhere(path)
    stop = threading.Event()

    def beat() -> None:
        for number in range(30):
            elsewhere(path, beat=number)
            time.sleep(0.05)
        path.unlink()
        stop.set()

    threading.Thread(target=beat).start()

    assert took_s(path) > 1.2
    assert stop.wait(2)


def test_a_still_heart_elsewhere_is_taken_over_after_a_while(path: Path) -> None:
    elsewhere(path)

    assert 0.4 <= took_s(path) < 3


def test_who_does_not_wait_learns_that_another_has_it(path: Path) -> None:
    elsewhere(path)

    with pytest.raises(Held), Lease(path).held(never, wait=False):
        pass

    assert json.loads(path.read_text())["owner"] == "other"
    time.sleep(0.5)  # nobody has beaten since
    with Lease(path).held(never, wait=False):
        pass


@pytest.mark.full
def test_a_dead_process_of_this_machine_is_taken_over_at_once(path: Path) -> None:
    code = (
        "import sys, os; from pathlib import Path; from mixbench.storage.lease import Lease\n"
        "with Lease(Path(sys.argv[1])).held(print): os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    assert path.exists()
    assert not Lease(path).fresh()

    assert took_s(path) < 0.3


def test_without_a_folder_for_temporary_files_only_the_heartbeat_counts(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(path / "missing"))

    with Lease(path).held(never):
        assert Lease(path).fresh()


@pytest.mark.parametrize("jump", [-1e6, 1e6])
def test_a_clock_that_jumps_changes_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    elsewhere(path)
    monkeypatch.setattr(time, "time", lambda: jump)

    assert Lease(path).fresh()
    assert 0.4 <= took_s(path) < 3


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"owner": 3}'])
def test_a_half_written_lease_is_taken_over_after_a_while(path: Path, content: str) -> None:
    path.write_text(content)

    assert took_s(path) >= 0.4


def test_who_was_stopped_for_too_long_learns_of_it(path: Path) -> None:
    lost = threading.Event()
    with Lease(path).held(lost.set):
        elsewhere(path)
        assert lost.wait(2)

    assert json.loads(path.read_text())["owner"] == "other"  # it is not ours to remove


def test_one_look_counts_by_the_disks_own_time(path: Path) -> None:
    elsewhere(path)
    assert Lease(path).fresh()

    time.sleep(0.5)

    assert not Lease(path).fresh()
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_of_many_who_see_it_dead_one_gets_it(path: Path) -> None:
    elsewhere(path)
    holders: list[int] = []
    wrong: list[Callable[[], None]] = []

    def work(number: int) -> None:
        with Lease(path).held(lambda: wrong.append(never)):
            holders.append(number)
            assert len(holders) == 1
            time.sleep(0.1)
            holders.remove(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not wrong
