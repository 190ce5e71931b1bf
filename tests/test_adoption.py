"""A result of earlier code counts again if the first and last steps are bit-identical."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import Run

METHOD = '''"""Mine.

Paper    none
Source   none
Differs  none
"""

from mixbench.contract import Method, Sources
from mixbench.kernels import beta, blend, permutation


class Mine(Method):
    """Blend."""

    version = {version}

    def __init__(self{more}):
        super().__init__()

    def mix(self, x, step):
        lam = float(beta(1.0, step.rng)) {change}
        partner = permutation(len(x), step.rng, x.device)
        return blend(x, partner, lam), Sources.pair(partner, lam)
'''


@pytest.fixture
def cell(mixbench: Run, tmp_path: Path) -> Callable[..., Any]:
    """Run a command for a cell of a method whose code has a change."""

    def command(*words: str, change: str, version: int = 1, more: str = "") -> Any:
        text = METHOD.format(change=change, version=version, more=more)
        (tmp_path / "mine.py").write_text(text)
        few = ("--set", "digits.epochs=2", "--seeds", "1", "--store", str(tmp_path / "store"))
        return mixbench(*words, "-m", str(tmp_path / "mine.py"), "-t", "digits", *few)

    return command


def trainings(store: Path) -> dict[str, Any]:
    """Return the manifests of the finished trainings, by key."""
    found = (json.loads(path.read_text()) for path in store.glob("stages/*/manifest.json"))
    return {m["key"]: m for m in found if m["spec"]["stage"]["identity"]["kind"] == "train"}


@pytest.mark.full
def test_a_change_without_effect_is_adopted(cell: Callable[..., Any], tmp_path: Path) -> None:
    assert cell("run", change="").returncode == 0
    (old,) = trainings(tmp_path / "store")

    done = cell("cache", "adopt", change="* 1.0")

    assert done.returncode == 0, done.stderr
    assert "1 of 1 unfinished trainings are adopted" in done.stdout
    new = next(m for key, m in trainings(tmp_path / "store").items() if key != old)
    assert new["adopted_from"] == old
    assert new["files"] == trainings(tmp_path / "store")[old]["files"]
    again = cell("run", change="* 1.0")
    assert "1 cached, 1 to run" in again.stderr
    (path,) = (tmp_path / "store/records").glob("*/*/*.json")
    record = json.loads(path.read_text())
    assert record["stages"][0]["adopted_from"] == old
    assert record["stages"][0]["steps"] == 20


@pytest.mark.full
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("* 0.5", "the first 2 steps give other weights"),
        ("if step.rng.initial_seed() != LATE else 0.5", "the last steps give other weights"),
    ],
)
def test_a_change_with_an_effect_is_not_adopted(
    cell: Callable[..., Any], tmp_path: Path, change: str, said: str
) -> None:
    from mixbench.streams import stream_seed

    assert cell("run", change="").returncode == 0

    done = cell("cache", "adopt", change=change.replace("LATE", str(stream_seed(0, "mix", 19))))

    assert said in done.stdout
    assert "0 of 1 unfinished trainings are adopted" in done.stdout
    assert len(trainings(tmp_path / "store")) == 1


@pytest.mark.full
def test_another_version_is_no_candidate(cell: Callable[..., Any]) -> None:
    assert cell("run", change="").returncode == 0

    done = cell("cache", "adopt", change="", version=2)

    assert "0 of 1 unfinished trainings are adopted; 1 have no earlier result" in done.stdout


@pytest.mark.full
def test_a_parameter_that_was_added_is_adopted_with_its_default(cell: Callable[..., Any]) -> None:
    assert cell("run", change="").returncode == 0

    other = cell("cache", "adopt", "--set", "mine.share=0.4", change="", more=", share: float=0.5")
    done = cell("cache", "adopt", change="", more=", share: float = 0.5")

    assert "0 of 1 unfinished trainings are adopted; 1 have no earlier result" in other.stdout
    assert "1 of 1 unfinished trainings are adopted" in done.stdout
