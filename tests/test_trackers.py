"""Trackers: what they log of finished cells, and that they stop no run."""

from pathlib import Path

import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mixbench import trackers
from mixbench.storage.store import Store
from tests.support import Run

RUN = ("run", "-m", "none,cutmix", "-t", "digits", "--set", "digits.epochs=2")


@pytest.mark.full
def test_curves_metrics_and_pictures_are_logged_once(mixbench: Run, tmp_path: Path) -> None:
    mixbench(*RUN)  # cells that are finished already are logged as well

    done = mixbench(*RUN, "--log", "csv,tensorboard")
    cells = {path.parent for path in (tmp_path / "store/tracked").rglob("logged")}
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "store/tracked").rglob("*.*")}
    again = mixbench(*RUN, "--log", "csv", "--log", "tensorboard")

    assert (done.returncode, again.returncode) == (0, 0), done.stderr
    assert f"logged in {tmp_path / 'store/tracked'}" in done.stderr
    assert len(cells) == 4
    (mixed,) = (tmp_path / "store/tracked").glob("csv/digits*/cutmix/*/s0/*")
    curve = pd.read_csv(mixed / "curve.csv")
    assert list(curve["epoch"]) == [1, 2]
    metrics = pd.read_csv(mixed / "metrics.csv", index_col=0)["value"]
    assert f"{metrics['test/top1']:.2f}" in done.stdout
    config = pd.read_csv(mixed / "config.csv", index_col=0)["value"]
    assert (config["recipe.epochs"], config["method.alpha"]) == ("2", "1.0")
    assert Path(config["record"]).is_file()
    assert (mixed / "mixes.png").stat().st_size > 1000
    assert [path.parent for path in (tmp_path / "store/tracked/csv").rglob("*.png")] == [mixed]
    (events,) = (tmp_path / "store/tracked").glob("tensorboard/digits*/cutmix/*/s0/*/events*")
    read = EventAccumulator(str(events))
    read.Reload()
    losses = [event.value for event in read.Scalars("loss")]
    assert losses == pytest.approx(list(curve["loss"]), rel=1e-6)
    assert read.Tags()["images"] == ["mixes"]
    kept = {path: path.stat().st_mtime_ns for path in times if path.name != "log.txt"}
    assert kept == {path: time for path, time in times.items() if path in kept}


@pytest.mark.slow
def test_a_tracker_that_fails_stops_no_run(mixbench: Run, tmp_path: Path) -> None:
    place = tmp_path / "store/tracked/csv"
    place.parent.mkdir(parents=True)
    place.write_text("in the way")

    done = mixbench(*RUN, "--log", "csv")

    assert done.returncode == 0
    assert "some cells could not be logged; see " in done.stderr
    assert "in the way" in place.read_text()
    assert "csv" in (tmp_path / "store/tracked/log.txt").read_text()
    assert len(list((tmp_path / "store/records").rglob("*.json"))) == 2


def test_a_log_that_cannot_be_begun_is_told_at_the_end(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.open()
    (store.root / "tracked").write_text("in the way")
    tracking = trackers.Tracking(store, ["csv"])

    tracking.add(tmp_path / "record.json")
    tracking.add(tmp_path / "other.json")
    told = tracking.close()

    assert len(told) == 1
    assert told[0].startswith("--log: nothing is logged: ")
    assert trackers.Tracking(store, ["csv"]).close() == []


@pytest.mark.slow
def test_a_cell_is_a_run_of_weights_and_biases(
    mixbench: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")

    done = mixbench(*RUN, "--log", "wandb")

    assert done.returncode == 0
    assert "could not be logged" not in done.stderr
    assert len(list((tmp_path / "store/tracked").rglob("*.wandb"))) == 2


def test_trackers_that_are_missing_are_told_before_anything_runs(
    mixbench: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda _: None)

    absent = mixbench(*RUN, "--log", "wandb")
    unknown = mixbench(*RUN, "--log", "tensorbord")

    assert absent.returncode == unknown.returncode == 2
    assert "--log wandb needs wandb: pip install 'mixbench[wandb]'" in absent.stderr
    assert "No tracker 'tensorbord'. Did you mean 'tensorboard'?" in unknown.stderr
