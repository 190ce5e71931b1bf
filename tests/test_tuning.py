"""Tuning: the same grid for every row, chosen on held-out images, told in record and table."""

import json
import re
from pathlib import Path

import pytest

from mixbench.declare import Recipe
from mixbench.errors import UsageError
from mixbench.leaderboard.table import leaderboards
from mixbench.plan.tuning import candidates, grid_of, read_grid
from mixbench.records.schema import parse
from mixbench.storage.curves import read_curve
from tests.support import Run

RECIPE = Recipe("resnet8", 5, lr=0.02, weight_decay=5e-4)
DIGITS = [
    *("-t", "digits", "--set", "digits.epochs=2", "--set", "digits.tail=1"),
    *("--set", "digits.batch_size=200"),
]


def test_the_usual_grid_is_around_the_recipes_own_values() -> None:
    grid = grid_of("task", RECIPE, {})

    every = candidates(RECIPE, grid)

    assert grid == {"lr": (0.006, 0.02, 0.06), "weight_decay": (5e-5, 5e-4, 5e-3)}
    assert len(every) == 9
    assert every["lr=0.02,weight_decay=0.0005"] == RECIPE


def test_named_values_take_its_place_and_are_typed() -> None:
    grid = grid_of("task", RECIPE, read_grid(["nesterov=true,false", " lr = 1e-3, 0.01", ""]))

    assert grid == {"nesterov": (True, False), "lr": (0.001, 0.01)}


def test_equal_candidates_are_one() -> None:
    assert len(candidates(RECIPE, grid_of("task", RECIPE, {"lr": ["0.1", "1e-1", "0.2"]}))) == 2
    with pytest.raises(UsageError, match="two candidates or more"):
        grid_of("task", RECIPE, {"lr": ["0.1", "1e-1"]})


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("epochs=3,4", "takes the values of one of lr, head_lr_mult"),  # it would not cost the same
        ("lr", "takes the values of one of lr"),
        ("lr=0.1,fast", r"digits.lr .*valid number.*got 'fast'"),
        ("lr=0.1,1e-9", r"digits: min_lr must be at most lr, 1e-09 \(got 1e-06\)"),
        ("momentum=0.9,1.2", r"digits.momentum must be less than or equal to 1 \(got '1.2'\)"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(mixbench: Run, option: str, said: str) -> None:
    done = mixbench("plan", "-m", "none", *DIGITS, "--tune", option, "--set", "digits.min_lr=1e-6")

    assert done.returncode == 2
    assert re.search(said, done.stderr)


def test_every_row_has_the_same_candidates_and_shares_those_of_plain_runs(mixbench: Run) -> None:
    rows = json.loads(mixbench("plan", "-m", "none,mixup", *DIGITS, "--tune", "--json").stdout)
    (plain,) = (
        row["key"]
        for row in json.loads(mixbench("plan", "-m", "none", *DIGITS, "--json").stdout)
        if row["stage"] == "train"
    )

    trainings = [row for row in rows if row["stage"] == "train"]
    tried = [
        {r["cell"].rpartition("/")[2]: r["key"] for r in trainings if method in r["cell"]}
        for method in ("/none/", "/mixup/")
    ]
    assert len(tried[0]) == 9
    assert tried[0].keys() == tried[1].keys()
    assert plain in tried[0].values()  # the recipe as it is stands in the grid
    assert [row["stage"] for row in rows].count("tune") == 2


@pytest.mark.full
def test_the_best_on_held_out_images_is_kept_and_told(mixbench: Run, tmp_path: Path) -> None:
    options = ["-m", "mixup", *DIGITS, "--tune", "lr=0.0001,0.05,1e30"]

    done = mixbench("run", *options)
    again = mixbench("run", *options)

    assert done.returncode == 0, done.stderr
    assert "DIVERGED" in done.stderr
    records = {
        path.parent.name: json.loads(path.read_text())
        for path in (tmp_path / "store").glob("records/digits/*/*.json")
    }
    for record in records.values():
        tuning = record["tuning"]
        assert tuning["grid"] == {"lr": [0.0001, 0.05, 1e30]}
        assert (tuning["trainings"], tuning["diverged"]) == (3, 1)
        assert tuning["chosen"] == {"lr": 0.05}
        train = [s for s in record["stages"] if s["kind"] == "train"]
        assert len(train) == 2  # the third came to nothing
        (stage,) = (s for s in record["stages"] if s["kind"] == "tune")
        weights = {a["path"]: a["sha256"] for a in record["artifacts"] if a["role"] == "weights"}
        assert {path.split("/")[1] for path in weights} == {stage["key"]}
        curves = {
            s["key"]: read_curve(tmp_path / f"store/stages/{s['key']}/curve.json") for s in train
        }
        ends = [curve[-1]["validation_top1"] for curve in curves.values()]
        assert tuning["value"] == max(ends) > min(ends)
        assert record["cost"]["images"] == sum(s["steps"] for s in train) * 200
    (board,) = json.loads(mixbench("report", "--format", "json").stdout)
    assert board["name"].endswith("tuned")
    assert "the best of 3 trainings by top1 on the validation split" in board["facts"][3]
    assert {row["tuned_to"] for row in board["rows"]} == {"lr=0.05 (1 diverged)"}
    assert "0 to run" in again.stderr
    (one,) = (parse(json.dumps(record), "tuned") for record in records.values())
    plain = one.model_copy(update={"tuning": None})
    assert len(leaderboards([one, plain])) == 2  # tuned and plain numbers never meet


@pytest.mark.full
def test_the_chosen_recipe_is_trained_on_all_images(mixbench: Run, tmp_path: Path) -> None:
    tuned = mixbench(
        "run", "-m", "mixup", *DIGITS, "--tune", "lr=0.0001,0.05", "--set", "digits.final_on=all"
    )
    plain = mixbench(
        "run", "-m", "mixup", *DIGITS, "--set", "digits.holdout=0", "--set", "digits.lr=0.05"
    )

    assert tuned.returncode == plain.returncode == 0, tuned.stderr
    records = [json.loads(p.read_text()) for p in (tmp_path / "store").glob("records/digits/*/*")]
    one, other = sorted(records, key=lambda record: record["tuning"] is None)
    assert one["tuning"]["chosen"] == {"lr": 0.05}
    assert one["recipe"]["final_on"] == "all"
    assert one["held_out"] == other["held_out"] == 0
    weights = [
        {a["sha256"] for a in record["artifacts"] if a["role"] == "weights"}
        for record in (one, other)
    ]
    assert weights[0] == weights[1]
    assert one["cost"]["images"] == 2 * 2 * 1000 + 2 * 1200


@pytest.mark.full
def test_where_nothing_but_divergence_is_found_the_cell_says_so(
    mixbench: Run, tmp_path: Path
) -> None:
    done = mixbench("run", "-m", "none", *DIGITS, "--tune", "lr=1e30,1e31")

    assert done.returncode == 1
    (path,) = (tmp_path / "store").glob("records/digits/none/*.json")
    record = json.loads(path.read_text())
    assert record["status"] == "diverged"
    assert "is nan at" in record["reason"]
