"""The contract holds for the kinds of methods of the field: one sketch of each, checked and run."""

from pathlib import Path

import pytest

from mixbench.plan.graph import plan
from mixbench.plan.request import Request, cells_of
from mixbench.registry.parameters import read_settings
from tests.support import Run

SKETCHES = sorted((Path(__file__).parent / "sketches").glob("*.py"))
ONE_EPOCH = ("-t", "digits", "--set", "digits.epochs=1", "--seeds", "1")


@pytest.fixture(params=SKETCHES, ids=lambda path: path.stem)
def sketch(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def model_of(sketch: Path) -> tuple[str, ...]:
    return ("--model", "small_test_vit") if "needs_attention = True" in sketch.read_text() else ()


@pytest.mark.full
def test_a_sketch_passes_its_checks(sketch: Path, mixbench: Run) -> None:
    done = mixbench("check", str(sketch))

    assert done.returncode == 0, done.stdout
    assert "0 exempt, 0 failed" in done.stdout


@pytest.mark.full
def test_a_sketch_trains_on_digits(sketch: Path, mixbench: Run) -> None:
    done = mixbench("run", "-m", str(sketch), *ONE_EPOCH, *model_of(sketch))

    assert done.returncode == 0, done.stdout + done.stderr
    assert sketch.stem in done.stdout


@pytest.mark.full
def test_the_recipe_of_a_method_with_a_teacher_can_be_tuned(mixbench: Run) -> None:
    (sketch,) = (path for path in SKETCHES if path.stem == "two_teachers")
    tuned = ("--tune", "lr=0.01,0.1", "--set", "digits.final_on=all", "--set", "digits.tail=1")

    done = mixbench("run", "-m", str(sketch), *ONE_EPOCH, *tuned)

    assert done.returncode == 0, done.stdout + done.stderr
    assert sketch.stem in done.stdout


@pytest.mark.full
def test_models_without_attention_are_refused_before_training(mixbench: Run) -> None:
    (sketch,) = (path for path in SKETCHES if model_of(path))

    done = mixbench("run", "-m", str(sketch), *ONE_EPOCH)

    assert done.returncode != 0
    assert "ResidualNet has no attention maps: choose a ViT of timm." in done.stderr
    assert "Traceback" not in done.stderr


def test_a_trained_teacher_is_an_input_of_the_training() -> None:
    (sketch,) = (path for path in SKETCHES if path.stem == "two_teachers")
    settings = read_settings(["digits.epochs=1"])

    planned = plan(cells_of(Request([str(sketch)], ["digits"], [0], settings=settings)))

    trainings = [stage for stage in planned.stages.values() if stage.kind == "train"]
    assert [stage.identity.run and stage.identity.run.method.name for stage in trainings] == [
        "none",
        "two_teachers",
    ]
    assert "teacher" in trainings[1].inputs
